"""A view as a figure, by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from family.look.maps import rollout
from family.look.over import cells_of, over_picture
from family.look.page import chosen_layer
from family.look.view import Side, View

TILES = 12
"""Pictures of a figure, at most."""
COLUMNS = 6
WIDE = 2.5
"""So many times as wide as high: such pictures stand one below the other."""
LABELLED = 80
"""Tokens of a matrix that are named."""


def save_figure(
    view: View, path: str | Path, layer: int | None = None, head: int | None = None
) -> None:
    """Write a figure of a view: the matrix of words, or what was read of a picture, a tile each of the boxes, of
    the words that were written, or of the classes.

    Args:
        path: ends as matplotlib knows it: ``.png``, ``.pdf``, ``.svg``.
        layer, head: of the first panel, counted from 1; None is the last layer, and the mean of its heads.

    Raises:
        ValueError: an ending that matplotlib does not know.
    """
    from matplotlib.figure import Figure

    panel = view.panels[0]
    chosen = panel.maps[chosen_layer(panel.maps, layer)]
    assert chosen is not None
    weights = chosen.mean(0) if head is None else chosen[head - 1]
    queries, keys = view.sides[panel.queries], view.sides[panel.keys]
    figure = Figure(facecolor="white", layout="constrained")
    if keys.picture is None:
        matrix(figure, weights, queries, keys)
    else:
        tiles(figure, view, keys, of_picture(view, weights))
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise ValueError(f"{path} cannot be written: {error}.") from None


def matrix(figure: Any, weights: Tensor, queries: Side, keys: Side) -> None:
    """Queries by keys, with their words."""
    rows, columns = weights.shape
    figure.set_size_inches(max(3.0, 0.3 * columns + 1.6), max(2.4, 0.3 * rows + 1.3))
    axes = figure.subplots()
    axes.imshow(weights.float().cpu().numpy(), cmap="Blues", vmin=0, aspect="equal")
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    for axis, side in ((axes.xaxis, keys), (axes.yaxis, queries)):
        named = len(side.tokens) <= LABELLED
        axis.set_ticks(range(len(side.tokens)), map(str, side.tokens)) if named else axis.set_ticks(
            []
        )
    axes.tick_params(axis="x", rotation=60)
    axes.spines[:].set_visible(False)


def of_picture(view: View, weights: Tensor) -> list[tuple[str, Tensor]]:
    """What is shown over a picture: a name, and ``(keys)`` numbers, each; of many some, evenly."""
    found = over_picture(view, weights)
    if view.relevance:
        maps = [one if one is None else one[None] for one in view.panels[0].maps]
        return [*found, ("rollout", rollout(maps)[0].mean(0).cpu())]
    if isinstance(view.sides[view.panels[0].queries].tokens[0], int) and len(found) > TILES:
        return [found[i * len(found) // TILES] for i in range(TILES)]
    return found[:TILES]


def tiles(figure: Any, view: View, side: Side, shown: list[tuple[str, Tensor]]) -> None:
    """The picture as it is, and one for each of what is shown over it."""
    assert side.picture is not None
    count = len(shown) + 1
    wide = side.picture.width > WIDE * side.picture.height
    columns = 1 if wide else min(COLUMNS, count)
    rows = -(-count // columns)
    figure.set_size_inches(*((7.5, 2.2 * rows) if wide else (1.9 * columns, 2.1 * rows)))
    axes = np.atleast_1d(figure.subplots(rows, columns)).flatten()
    for ax in axes:
        ax.axis("off")
    pixels = np.asarray(side.picture.convert("RGB")) / 255
    axes[0].imshow(pixels)
    axes[0].set_title("picture", fontsize=9)
    for i, (ax, (name, values)) in enumerate(zip(axes[1:], shown, strict=False)):
        ax.imshow(pixels * lit(side, values, pixels.shape[:2])[..., None])
        ax.set_title(name, fontsize=9)
        if view.boxes:
            draw_box(ax, view.boxes[i]["box"], pixels.shape)


def lit(side: Side, values: Tensor, size: tuple[int, ...]) -> np.ndarray:
    """How light each pixel is, ``(height, width)``: what is not read is dark."""
    assert side.grid is not None
    light = np.asarray(cells_of(side, values))
    light = 0.22 + 0.78 * np.sqrt(np.maximum(light, 0) / max(light.max(), 1e-9))
    down, across = (np.arange(n) / n / part for n, part in zip(size, side.covers, strict=True))
    rows = np.minimum((down * side.grid[0]).astype(int), side.grid[0] - 1)
    columns = np.minimum((across * side.grid[1]).astype(int), side.grid[1] - 1)
    return light.reshape(side.grid)[rows][:, columns]


def draw_box(ax: Any, box: list[float], size: tuple[int, ...]) -> None:
    from matplotlib.patches import Rectangle

    left, top, right, bottom = box
    height, width = size[:2]
    corner, wide, high = (
        (left * width, top * height),
        (right - left) * width,
        (bottom - top) * height,
    )
    ax.add_patch(Rectangle(corner, wide, high, fill=False, edgecolor="#ff7a1a", linewidth=1.6))
