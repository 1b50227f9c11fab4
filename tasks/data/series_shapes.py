"""The built-in series: waves of four shapes in two channels, and one long wave to go on with.

The second channel has the same wave a quarter of a period earlier or later: either channel by itself tells the
shape, and only both which of them leads. The period is drawn by itself. What is right is always known; noise
alone keeps a model from it.
"""

from __future__ import annotations

import numpy as np

from tasks.data.series_files import Series
from tasks.data.splits import hashes

SHAPES = ("sine", "square", "triangle", "saw")
LEADS = ("first", "second")
"""Which channel leads."""
CLASSES = tuple(f"{shape} {lead}" for shape in SHAPES for lead in LEADS)
CHANNELS = ("first", "second")
PERIODS = (10.0, 24.0)
LENGTHS = (40, 80)
NOISE = 0.3
"""Deviation of the noise; the waves go from -1 to 1."""
LONG = ("level",)
SEASON = 24
LONG_NOISE = 0.1
"""Of the long series: nobody foretells it better than with this error."""


def wave(shape: str, phase: np.ndarray) -> np.ndarray:
    """Of a phase in periods; in -1..1, the saw falling."""
    part = phase % 1.0
    if shape == "sine":
        return np.sin(2 * np.pi * phase)
    if shape == "square":
        return np.where(part < 0.5, 1.0, -1.0)
    return 4 * np.abs(part - 0.5) - 1 if shape == "triangle" else 1 - 2 * part


def sample(index: int, seed: int = 0, split: str = "train") -> Series:
    """Series ``index`` of a split: its class is its label, its period its number."""
    draw = generator(split, seed, index)
    shape, lead = SHAPES[draw.integers(len(SHAPES))], LEADS[draw.integers(2)]
    period, steps = draw.uniform(*PERIODS), int(draw.integers(*LENGTHS, endpoint=True))
    phase = np.arange(steps) / period + draw.uniform()
    other = phase + (0.25 if lead == "second" else -0.25)
    clean = np.stack([wave(shape, phase), wave(shape, other)], 1)
    values = clean + NOISE * draw.standard_normal(clean.shape)
    name = f"{split} {index}"
    return Series(name, values, CHANNELS, name, "", f"{shape} {lead}", (float(period),))


def long_series(steps: int, seed: int = 0) -> Series:
    """A wave of 24 steps whose height rises and falls over 168, and noise."""
    time = np.arange(steps)
    height = 1 + 0.5 * np.sin(2 * np.pi * time / (7 * SEASON))
    clean = height * wave("sine", time / SEASON)
    values = clean + LONG_NOISE * generator("long", seed, 0).standard_normal(steps)
    return Series("level", 20 + 5 * values[:, None], LONG, "the built-in series")


def generator(split: str, seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng([int(hashes([split])[0]), seed, index])
