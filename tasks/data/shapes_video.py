"""The built-in world in motion: clips of two shapes, of which one moves.

What goes out at one side comes in at the other, and which of the two lies above is drawn by chance: a frame
by itself tells neither what moves nor where to, and the frames of a clip in the reverse order are one of the
opposite class.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from tasks.data.shapes import BACKGROUNDS, COLOURS, SHAPES, outline

MOVERS = SHAPES[:4]
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Steps right and down."""
CLASSES = tuple(f"{shape} {direction}" for shape in MOVERS for direction in DIRECTIONS)
"""What moves which way."""
DIAMETERS = {"small": 0.3, "large": 0.42}
"""Of a shape, as a share of the picture's side."""
SPEEDS = (0.04, 0.08)
"""The least and the greatest step from a frame to the next, as a share of the side."""
FINE = 4
"""Steps of a pixel that shapes are placed in."""


@dataclass(frozen=True)
class Thing:
    """A shape; ``x`` and ``y``, shares of the side, are its centre in the first frame."""

    shape: str
    colour: str
    size: str
    x: float
    y: float


@dataclass(frozen=True)
class MovingScene:
    """Two shapes, the latter above; ``moving`` is the number of the one that moves."""

    things: tuple[Thing, Thing]
    moving: int
    direction: str
    speed: float
    background: str


def sample(index: int, seed: int = 0, split: str = "train") -> MovingScene:
    """Clip ``index`` of a split: the same on every machine, reached without drawing the others."""
    draw_from = random.Random(f"video-{split}-{seed}-{index}")
    kinds = draw_from.sample(MOVERS, 2)
    colours = draw_from.sample(list(COLOURS), 2)
    one, other = (
        Thing(
            shape,
            colour,
            draw_from.choice(list(DIAMETERS)),
            draw_from.random(),
            draw_from.random(),
        )
        for shape, colour in zip(kinds, colours, strict=True)
    )
    return MovingScene(
        (one, other),
        draw_from.randrange(2),
        draw_from.choice(list(DIRECTIONS)),
        draw_from.uniform(*SPEEDS),
        draw_from.choice(list(BACKGROUNDS)),
    )


def label(scene: MovingScene) -> int:
    """The class: what moves which way."""
    return CLASSES.index(f"{scene.things[scene.moving].shape} {scene.direction}")


def draw(scene: MovingScene, frames: int = 8, image_size: int = 32) -> np.ndarray:
    """The clip, ``(frames, image_size, image_size, 3)`` uint8."""
    side = image_size * FINE
    clip = np.empty((frames, image_size, image_size, 3), np.float32)
    clip[:] = BACKGROUNDS[scene.background]
    for number, thing in enumerate(scene.things):
        across, down = DIRECTIONS[scene.direction] if number == scene.moving else (0, 0)
        canvas = Image.new("L", (side, side))
        corners = outline(thing.shape, side / 2, side / 2, DIAMETERS[thing.size] * side / 2)
        ImageDraw.Draw(canvas).polygon(corners, fill=1)
        cover, share, before = np.asarray(canvas), np.empty(0), None
        colour = np.array(COLOURS[thing.colour], np.float32)
        for i, frame in enumerate(clip):
            # From the middle of the picture; what a shift pushes out comes in at the other side.
            y = round((thing.y - 0.5 + i * down * scene.speed) * side)
            x = round((thing.x - 0.5 + i * across * scene.speed) * side)
            if (y, x) != before:  # else it stands still
                before, share = (y, x), averaged(np.roll(cover, (y, x), (0, 1)))[..., None]
            frame += share * (colour - frame)
    return clip.round().astype(np.uint8)


def averaged(fine: np.ndarray) -> np.ndarray:
    """``(side, side)`` uint8 of 0 and 1 -> their mean in each square of ``FINE`` x ``FINE``, float32."""
    size = len(fine) // FINE
    rows = fine.reshape(size, FINE, -1).sum(1, dtype=np.uint8)
    return rows.reshape(size, size, FINE).sum(2, dtype=np.uint8) / np.float32(FINE * FINE)
