"""Curves of a series, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 896, 240
FINER = 2
"""So many times as large are curves drawn, and then shrunk, so that their edges are smooth."""
EDGE, HEAD = 12, 30
"""Pixels around curves, and above them, where their names stand."""
NAMED = 6
"""Channels whose names stand in the picture, at most."""
COLOURS = ("#2563eb", "#d9480f", "#2f9e44", "#9c36b5", "#b7791f", "#0b7285")
DASH = 8
"""Pixels of a dash of what is foretold."""
Point = tuple[float, float]


def curves(
    channels: Sequence[str],
    values: Sequence[Sequence[float]],
    foretold: Mapping[str, Sequence[float]] | None = None,
) -> Image.Image:
    """A line for each channel, and what is foretold of it dashed, behind a thin upright line.

    Args:
        channels: their names.
        values: ``(steps, channels)``, on one scale.
        foretold: the further steps of some channels.
    """
    foretold = foretold or {}
    steps = len(values)
    count = steps + max(map(len, foretold.values()), default=0)
    every = [one for row in values for one in row] + [x for some in foretold.values() for x in some]
    low, high = min(every), max(every)
    picture = Image.new("RGB", (WIDTH * FINER, HEIGHT * FINER), "white")
    pen = ImageDraw.Draw(picture)

    def at(step: int, value: float) -> Point:
        part = (value - low) / (high - low) if high > low else 0.5
        down = HEAD + (HEIGHT - HEAD - EDGE) * (1 - part)
        return (step + 0.5) / count * WIDTH * FINER, down * FINER

    if count > steps:
        edge = steps / count * WIDTH * FINER
        pen.line([(edge, 0), (edge, HEIGHT * FINER)], fill="#c9cdd3", width=FINER)
    for i, name in enumerate(channels):
        colour = COLOURS[i % len(COLOURS)]
        points = [at(step, row[i]) for step, row in enumerate(values)]
        if len(points) == 1:
            points *= 2
        pen.line(points, fill=colour, width=2 * FINER, joint="curve")
        after = [at(steps + step, value) for step, value in enumerate(foretold.get(name, ()))]
        for begin, end in dashes([points[-1], *after]) if after else ():
            pen.line([begin, end], fill=colour, width=2 * FINER)
    write_names(pen, channels)
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def dashes(points: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Every other piece of a line."""
    pieces: list[tuple[Point, Point]] = []
    for (x, y), (to_x, to_y) in pairwise(points):
        length = ((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5
        parts = max(1, round(length / (DASH * FINER)))
        for i in range(parts):
            from_part, to_part = i / parts, (i + 1) / parts
            pieces.append(
                (
                    (x + from_part * (to_x - x), y + from_part * (to_y - y)),
                    (x + to_part * (to_x - x), y + to_part * (to_y - y)),
                )
            )
    return pieces[::2]


def write_names(pen: ImageDraw.ImageDraw, channels: Sequence[str]) -> None:
    """Which colour is whose, in the corner."""
    font, x = ImageFont.load_default(13 * FINER), float(EDGE * FINER)
    for i, name in enumerate(channels[:NAMED]):
        text = name if len(name) <= 20 else f"{name[:19]}\N{HORIZONTAL ELLIPSIS}"
        box = pen.textbbox((x, 6 * FINER), text, font=font)
        pen.text((x, 6 * FINER), text, fill=COLOURS[i % len(COLOURS)], font=font)
        x = box[2] + 14.0 * FINER
