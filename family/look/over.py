"""What was read of a picture, as light over its cells."""

from __future__ import annotations

import torch
from torch import Tensor

from family.look.page import chosen_layer
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


def light_of(view: View) -> tuple[Side, list[tuple[str, Tensor]]]:
    """A side with a picture, and what is shown over it: a name, and numbers of its tokens, each; by the last layer
    that attends, the mean of its heads. Of a picture that was drawn square by square it is each word that was
    there, as the squares read it.

    Raises:
        ValueError: there is no picture.
    """
    panel = view.panels[0]
    last = panel.maps[chosen_layer(panel.maps, None)]
    keys, queries = view.sides[panel.keys], view.sides[panel.queries]
    if keys.picture is None or keys.grid is None or last is None:
        raise ValueError("this model reads the picture by no attention that could be shown.")
    weights = last.float().mean(0).cpu()
    if panel.queries == panel.keys or any(isinstance(token, str) for token in queries.tokens):
        return keys, over_picture(view, weights)
    words = [(j, token) for j, token in enumerate(keys.tokens) if isinstance(token, str)]
    return queries, [(token, weights[:, j]) for j, token in words]


def name_of(side: Side, place: int) -> str:
    """A word, or where a cell of the picture is."""
    token = side.tokens[place]
    if isinstance(token, str) or side.grid is None:
        return str(token)
    if side.named is not None:
        return side.named[token]
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
