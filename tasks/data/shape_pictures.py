"""What is in a picture of the built-in world, by comparing each of its cells with all that could be there."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.data.shapes import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene, ShapeObject, draw

SIDE = 48
"""Pixels at which pictures are compared."""
CELL = SIDE // 3
FAR = 0.35
"""A cell that differs so much from all that could be there, as a share of what a cell without anything
differs by, has a thing that is none of the world's."""
NOISE = 4.0
"""But for so much, squared and summed over its pixels: 0.07 each."""


class Seen(NamedTuple):
    """What a picture has."""

    objects: tuple[ShapeObject, ...]
    background: str
    odd: int
    """Cells with something that is none of the world's things, and not counted as one."""


@cache
def known(background: str) -> tuple[list[tuple[str, str, str]], NDArray[np.float32]]:
    """All things on a background, and ``(1 + things, cell * cell * 3)``: the empty cell, and each of them."""
    kinds = [(s, c, z) for s in SHAPES for c in COLOURS for z in SIZES]
    scenes = [(), *((ShapeObject(*kind, 1, 1),) for kind in kinds)]
    cells = [cell_of(draw(Scene(objects, background, 0), SIDE), 1, 1) for objects in scenes]
    return kinds, np.stack(cells)


def cell_of(picture: Image.Image, row: int, column: int) -> NDArray[np.float32]:
    """The pixels of a cell, ``(cell * cell * 3,)`` in 0..1."""
    y, x = row * CELL, column * CELL
    cell = np.asarray(picture, np.float32)[y : y + CELL, x : x + CELL]
    return (cell / np.float32(255)).ravel()


def seen(picture: Image.Image) -> Seen:
    """The things of a picture, drawn by whomever, and the background on which they fit best."""
    picture = picture.convert("RGB")
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    places = [(row, column) for row in range(3) for column in range(3)]
    cells = np.stack([cell_of(picture, *place) for place in places])
    best, found = np.inf, Seen((), "", 0)
    for background in BACKGROUNDS:
        kinds, all_cells = known(background)
        off = np.square(cells[:, None] - all_cells).sum(2)
        nearest = off.argmin(1)
        least = off[np.arange(len(cells)), nearest]
        if least.sum() < best:
            best = least.sum()
            odd = least > np.maximum(NOISE, FAR * off[:, 0])
            things = tuple(
                ShapeObject(*kinds[int(which) - 1], row=row, column=column)
                for which, (row, column), strange in zip(nearest, places, odd, strict=True)
                if which > 0 and not strange
            )
            found = Seen(things, background, int(odd.sum()))
    return found
