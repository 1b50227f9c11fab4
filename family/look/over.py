"""What was read of a picture, as light over its cells."""

from __future__ import annotations

import torch
from torch import Tensor

from family.look.view import Side, View


def over_picture(view: View, weights: Tensor) -> list[tuple[str, Tensor]]:
    """What is shown over the picture that the first panel's keys are: a name, and ``(keys)`` numbers, each. What
    speaks for the classes, or what each box, segment or word read; of a picture that is drawn, each square.

    Args:
        weights: ``(queries, keys)``, of that panel.
    """
    panel = view.panels[0]
    keys, queries = view.sides[panel.keys], view.sides[panel.queries]
    if view.relevance:
        told = [one for one in view.relevance if view.sides[one.get("side", 0)] is keys]
        return [(one["class"], torch.tensor(one["values"])) for one in told]
    named = [i for i, token in enumerate(queries.tokens) if isinstance(token, str)]
    rows = named or range(len(queries.tokens))
    return [(name_of(queries, i), weights[i].float().cpu()) for i in rows]


def name_of(side: Side, place: int) -> str:
    """A word, or where a cell of the picture is."""
    token = side.tokens[place]
    if isinstance(token, str) or side.grid is None:
        return str(token)
    return f"row {token // side.grid[1] + 1}, column {token % side.grid[1] + 1}"


def cells_of(side: Side, values: Tensor) -> list[float]:
    """Of each cell of a side's picture, row by row, its token's value; 0 where it has none.

    Args:
        values: ``(tokens)``.
    """
    assert side.grid is not None
    light = [0.0] * (side.grid[0] * side.grid[1])
    for token, value in zip(side.tokens, values.tolist(), strict=True):
        if isinstance(token, int):
            light[token] = value
    return light
