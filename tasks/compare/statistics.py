"""What can be said of variants from several seeds, and from the examples of a test set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sacrebleu
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.05
"""A difference that chance alone would make more often than this is none to speak of."""
RESAMPLES = 2000
ORDERS = 4
"""Longest n-grams of BLEU."""
Numbers = NDArray[np.float64]


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
    """The chance of a difference of means as large by seeds alone (Welch 1947); None if unknown.

    Two lists without any spread are told apart, or not, for certain.
    """
    if min(len(a), len(b)) < 2:
        return None
    if np.ptp(a) == np.ptp(b) == 0:
        return 1.0 if a[0] == b[0] else 0.0
    sides = [part for x in (a, b) for part in (np.mean(x), np.std(x, ddof=1), len(x))]
    return float(stats.ttest_ind_from_stats(*sides, equal_var=False).pvalue)


def holm(values: list[float | None]) -> list[float | None]:
    """P values for several tests at once (Holm 1979); None stays."""
    order = sorted((p, i) for i, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[i] = highest
    return adjusted


# --- Per example -------------------------------------------------------------------------------


def accuracy_statistics(rows: list[dict[str, Any]]) -> Numbers | None:
    """``(examples, 1)``: 1 where it was right; None where the rows do not say."""
    if not rows or "correct" not in rows[0]:
        return None
    return np.array([[float(row["correct"])] for row in rows])


def bleu_statistics(rows: list[dict[str, Any]], lowercase: bool = False) -> Numbers | None:
    """``(examples, 10)``: matching n-grams, all n-grams, lengths made and true, by sacreBLEU."""
    if not rows or not {"made", "true"} <= rows[0].keys():
        return None
    metric = sacrebleu.BLEU(lowercase=lowercase, effective_order=True)
    scores = [metric.sentence_score(row["made"], [row["true"]]) for row in rows]
    return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], dtype=float)


def accuracy(sums: Numbers, count: int) -> Numbers:
    """Of sums ``(..., 1)`` over ``count`` examples."""
    return sums[..., 0] / count


def bleu(sums: Numbers, count: int = 0) -> Numbers:
    """Corpus BLEU of sums ``(..., 10)``, smoothed as sacreBLEU does (Chen & Cherry 2014, method 3)."""
    counts, totals = sums[..., :ORDERS].copy(), sums[..., ORDERS : 2 * ORDERS]
    made, true = sums[..., -2], sums[..., -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        # The n-th order without a match counts as 1 / 2, 1 / 4 ... of one.
        empty = (counts == 0) & (totals > 0)
        smoothed = np.where(empty, 0.5 ** np.cumsum(empty, axis=-1), counts)
        precision = np.exp(np.log(smoothed / totals).mean(axis=-1))
        brevity = np.where(made < true, np.exp(1 - true / made), 1.0)
        score = 100 * brevity * precision
    none = (counts.sum(-1) == 0) | (totals == 0).any(-1) | (made == 0)
    return np.where(none, 0.0, score)


METRICS = {
    "accuracy": (accuracy_statistics, accuracy),
    "bleu": (bleu_statistics, bleu),
    "bleu_lowercase": (lambda rows: bleu_statistics(rows, lowercase=True), bleu),
}
"""Name of a test metric -> its sufficient statistics of each example, and itself of their sums."""


def bootstrap(name: str, a: list[Numbers], b: list[Numbers]) -> dict[str, float]:
    """The difference ``a - b`` over resampled test sets, the same for both (Koehn 2004).

    Args:
        name: one of :data:`METRICS`.
        a, b: for each seed, the statistics ``(examples, n)`` of the same examples; a resample's
            score is the mean over seeds.

    Returns:
        ``low`` and ``high`` of the 95 % interval, and the two-sided ``p``.
    """
    count = len(a[0])
    random = np.random.default_rng(0)
    # How often each example is drawn.
    drawn = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)
    score = METRICS[name][1]
    means = [np.mean([score(drawn @ one, count) for one in side], axis=0) for side in (a, b)]
    difference = means[0] - means[1]
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
        return f"{a} and {b}: one seed each cannot tell whether they differ.", False
    why = ", ".join(said)
    if max(tests) >= LEVEL:
        return f"{a} and {b}: no significant difference ({why}).", False
    if seeds is None:
        note = f"{better} beats {worse} on this test set ({why}), with one seed: others may not."
        return note, False
    return f"{better} is better than {worse} ({why}).", True


def chance(p: float) -> str:
    """A p value as one writes it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
