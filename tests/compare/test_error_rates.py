"""Where there is no difference, a report says "better" in 5 of 100 comparisons at most."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tasks.compare.pairs import STATES, judged

Draw = Callable[[np.random.Generator, int], np.ndarray]
METRICS: dict[str, Draw] = {
    "normal": lambda random, size: random.normal(0.8, 0.01, size),
    "skewed": lambda random, size: random.lognormal(size=size),
    # Half of the seeds get stuck: with few seeds, values that lie together prove little.
    "stuck": lambda random, size: (random.random(size) < 0.5) + random.normal(0, 0.005, size),
    "coarse": lambda random, size: np.round(random.normal(0, 0.7, size)),
}


def came(values: np.ndarray, diverged: np.ndarray) -> dict:
    """A variant as results have it, of its seeds' values and of which of them diverged."""
    seeds: dict[str, list[int]] = {state: [] for state in STATES}
    for seed, lost in enumerate(diverged):
        seeds["diverged" if lost else "finished"].append(seed)
    return {"values": values[~diverged].tolist(), "seeds": seeds}


def better(
    draw: Draw,
    sizes: tuple[int, ...],
    times: int,
    diverging: float = 0.0,
    spreads: tuple[float, ...] = (1.0, 1.0, 1.0),
    shift: float = 0.0,
) -> float:
    """The share of comparisons of so many seeds each in which some variant is called better.

    Args:
        diverging: how likely each seed diverges.
        spreads: what each variant's values are multiplied by.
        shift: of the first variant, against the others.
    """
    random, found = np.random.default_rng(0), 0
    for _ in range(times):
        variants = {}
        for i, (size, spread) in enumerate(zip(sizes, spreads, strict=False)):
            values = spread * draw(random, size) + (shift if i == 0 else 0)
            variants["abc"[i]] = came(values, random.random(size) < diverging)
        pairs = judged(variants, "max", lambda a, b: None)
        found += any(pair["significant"] for pair in pairs)
        assert all((" is better than " in p["verdict"]) == p["significant"] for p in pairs)
    return found / times


@pytest.mark.parametrize("diverging", [0.0, 0.2])
@pytest.mark.parametrize("count", [3, 5])
def test_equals_are_seldom_told_apart(count, diverging):
    for draw in METRICS.values():
        assert better(draw, (count, count), 500, diverging) <= 0.05


def test_what_differs_is_found():
    """The verdicts are not right by being silent."""
    assert better(METRICS["normal"], (5, 5), 100, shift=0.04) > 0.9
    assert better(METRICS["normal"], (3, 3), 100, shift=0.1) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("diverging", [0.0, 0.2])
@pytest.mark.parametrize("name", METRICS)
def test_error_rates_of_many(name, diverging):
    """With two seeds too, numbers of seeds that differ, and three variants at once."""
    sizes = [(2, 2), (3, 3), (3, 5), (5, 5), (3, 10), (10, 10), (5, 5, 5)]
    if name != "stuck":
        # Three seeds are all stuck or all not too often for three pairs at once: 8 %, each pair 3 %.
        sizes.append((3, 3, 3))
    found = {size: better(METRICS[name], size, 2000, diverging) for size in sizes}
    assert all(rate <= 0.05 for rate in found.values()), found


@pytest.mark.slow
def test_error_rates_where_spreads_differ():
    """The same mean, and seeds that matter more to one than to the other."""

    def centred(random: np.random.Generator, size: int) -> np.ndarray:
        return random.normal(size=size)

    for size in ((3, 3), (5, 5), (3, 10)):
        for spread in (0.2, 0.5, 2.0, 5.0):
            assert better(centred, size, 2000, spreads=(spread, 1.0)) <= 0.05
