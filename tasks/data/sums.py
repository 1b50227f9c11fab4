"""Additions of two-digit numbers, whose answers a rule can check."""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np

from tasks.data.shapes import SPLITS

FIRST, LAST = 10, 99


@cache
def pairs(split: str) -> list[tuple[int, int]]:
    """All pairs of a split; in whatever order two numbers stand, they belong to one split alone."""
    numbers = range(FIRST, LAST + 1)
    found = ((a, b) for a in numbers for b in numbers)
    return [(a, b) for a, b in found if share(a, b) in SPLITS[split]]


def share(a: int, b: int) -> int:
    """In which tenth of all sums one is."""
    return zlib.crc32(f"{min(a, b)}+{max(a, b)}".encode()) % 10


def sums(count: int, seed: int, split: str) -> list[tuple[str, str]]:
    """So many additions of a split in an order of their own, ``("27+35=", "62")``; all, where they are
    fewer."""
    known = pairs(split)
    order = np.random.default_rng(seed).permutation(len(known))[:count]
    return [(f"{a}+{b}=", str(a + b)) for a, b in (known[i] for i in order.tolist())]
