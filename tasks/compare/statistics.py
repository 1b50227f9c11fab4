"""What can be said of variants from several seeds, and from the examples of a test set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from tasks.compare.metrics import Numbers, Score

LEVEL = 0.05
"""A difference that chance alone would make more often than this is none to speak of."""
FEWEST = 3
"""Seeds that a difference needs: two of a coarse metric are equal by chance in one of eight pairs."""
RESAMPLES, AT_A_TIME = 2000, 50
MOST_WAYS = 20_000


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval over seeds; one seed has none."""

    mean: float
    low: float | None
    high: float | None


def interval(values: list[float]) -> Interval:
    """Student's t interval of a mean."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None, None)
    half = stats.t.ppf(1 - LEVEL / 2, len(values) - 1) * float(stats.sem(values))
    return Interval(mean, mean - half, mean + half)


def welch(a: list[float], b: list[float]) -> float | None:
    """The chance of a difference of means as large by seeds alone; None if unknown.

    Welch's t (1947) with the fewest degrees of freedom that it can have, those of the shorter list: his
    own estimate of their number finds more than 5 % where there is nothing to find, up to 7 % of 3 and 10
    seeds or of spreads that differ, 20 % where values are coarse. Two lists without any spread are told
    apart, or not, for certain.
    """
    few = min(len(a), len(b))
    if few < 2:
        return None
    error = math.sqrt(np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b))
    difference = abs(float(np.mean(a) - np.mean(b)))
    if np.ptp(a) == np.ptp(b) == 0:
        return 1.0 if a[0] == b[0] else 0.0
    return 2 * float(special.stdtr(few - 1, -difference / error))


def over_seeds(a: list[float], b: list[float], tests: int) -> float | None:
    """The chance that a report gives: :func:`welch`, and no less than :func:`by_ranks` where that could tell
    two variants apart in so many tests at once.

    Of seeds that get stuck, half of five say, Welch's test finds 5.4 % where there is nothing to find in three
    variants; ranks keep to 5 % whatever the values. Three seeds and three variants have too few ranks: 8 %
    there, if seeds get stuck.
    """
    p = welch(a, b)
    if p is not None and 2 * tests / math.comb(len(a) + len(b), len(a)) < LEVEL:
        p = max(p, by_ranks(a, b))
    return p


def by_ranks(a: list[float], b: list[float]) -> float:
    """The chance that ranks are shared out as unevenly (Wilcoxon 1945), equal values sharing theirs.

    It takes infinite values: those that lost against all others. Exact, over all ways to share out the
    seeds; of very many, by their normal limit.
    """
    count = len(a) + len(b)
    if math.comb(count, len(a)) > MOST_WAYS:
        return float(stats.mannwhitneyu(a, b, method="asymptotic").pvalue)
    sums = stats.rankdata([*a, *b])[ways(count, len(a))].sum(1)
    off = np.abs(sums - sums.mean())
    return float(np.mean(off > off[0] - 1e-6))  # the first way is the one that came


@cache
def ways(count: int, few: int) -> NDArray[np.int64]:
    """``(ways, few)``: all choices of so many places, the first of them ``0, 1, ...``."""
    return np.array(list(combinations(range(count), few)))


def holm(values: list[float | None]) -> list[float | None]:
    """P values for several tests at once (Holm 1979); None stays."""
    order = sorted((p, i) for i, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[i] = highest
    return adjusted


# --- Over the examples of a test set -----------------------------------------------------------


def resampled(scores: Sequence[Score], count: int) -> Numbers:
    """``(RESAMPLES,)``: the mean over seeds on resampled test sets, the same for all variants.

    Args:
        scores: of each seed, see :mod:`tasks.compare.metrics`.
        count: examples of the test set.
    """
    random, even = np.random.default_rng(0), np.full(count, 1 / count)
    means = []
    for _ in range(0, RESAMPLES, AT_A_TIME):
        drawn = random.multinomial(count, even, size=AT_A_TIME).astype(float)
        means.append(np.mean([score(drawn) for score in scores], axis=0))
    return np.concatenate(means)


def bootstrap(a: Numbers, b: Numbers) -> dict[str, float]:
    """The difference ``a - b`` of two variants, both :func:`resampled` (Koehn 2004).

    Returns:
        ``low`` and ``high`` of the 95 % interval, and the two-sided ``p``.
    """
    difference = a - b
    low, high = np.quantile(difference, [LEVEL / 2, 1 - LEVEL / 2])
    tail = min((difference <= 0).sum(), (difference >= 0).sum())
    p = min(1.0, 2 * (tail + 1) / (RESAMPLES + 1))
    return {"low": float(low), "high": float(high), "p": float(p)}


# --- In words ----------------------------------------------------------------------------------


def verdict(
    a: str,
    b: str,
    values: tuple[list[float], list[float]],
    mode: str,
    seeds: float | None,
    examples: float | None,
) -> tuple[str, bool]:
    """What the tests say of two variants, plainly; and whether they differ.

    Args:
        values: the metric of each seed of ``a`` and of ``b``.
        mode: "max" or "min".
        seeds: the adjusted p value over seeds, None with a single one.
        examples: the adjusted p value over test examples, None where there are none.
    """
    if sorted(values[0]) == sorted(values[1]):
        return f"{a} and {b} reach the same values: no significant difference.", False
    difference = float(np.mean(values[0]) - np.mean(values[1]))
    better, worse = (a, b) if (difference > 0) == (mode == "max") else (b, a)
    said = [f"over seeds {chance(seeds)}"] if seeds is not None else []
    said += [f"over test examples {chance(examples)}"] if examples is not None else []
    tests = [p for p in (seeds, examples) if p is not None]
    if not tests:
        return f"{a} and {b}: one seed cannot tell whether they differ.", False
    why = ", ".join(said)
    if max(tests) >= LEVEL:
        return f"{a} and {b}: no significant difference ({why}).", False
    few = min(map(len, values))
    if few < FEWEST:
        # Few seeds are those of these models, whatever the examples say.
        where = "on this test set" if examples is not None else "here"
        many = "one seed" if few == 1 else "two seeds"
        return f"{better} beats {worse} {where} ({why}), with {many}: others may not.", False
    return f"{better} is better than {worse} ({why}).", True


def chance(p: float) -> str:
    """A p value as one writes it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
