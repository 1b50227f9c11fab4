"""Test metrics as functions of how often each example is drawn, for the bootstrap.

What came of each example stands in the rows that :class:`tasks.compare.measure.Outcomes` wrote. A
metric makes of a run's rows a :data:`Score`, or None where they do not say enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.training.coco_metrics import RECALLS, THRESHOLDS
from tasks.training.text_scores import LONGER, bleu_of

Numbers = NDArray[np.float64]
Rows = Sequence[dict[str, Any]]
Score = Callable[[Numbers], Numbers]
"""Of draws ``(resamples, examples)``, how often each example counts, the score ``(resamples,)``."""
ORDERS = 4
"""Longest n-grams of BLEU."""


def tell(rows: Rows, *names: str) -> bool:
    """Whether there are rows, and all have these columns."""
    return bool(rows) and all(name in row for row in rows for name in names)


def columns(rows: Rows, *names: str) -> Numbers | None:
    """``(examples, names)`` or, of lists, ``(examples, names, n)``; None where a row lacks one."""
    if not tell(rows, *names):
        return None
    return np.array([[row[name] for name in names] for row in rows], dtype=float)


def ratio(
    rows: Rows,
    above: str,
    below: str | None = None,
    change: Callable[[Numbers], Numbers] = np.asarray,
) -> Score | None:
    """A sum over the examples by another, or by their number; and what follows from it."""
    if below is None:
        rows, below = [{"each": 1, **row} for row in rows], "each"
    parts = columns(rows, above, below)
    if parts is None:
        return None

    def score(drawn: Numbers) -> Numbers:
        sums = drawn @ parts
        return change(sums[:, 0] / sums[:, 1])

    return score


# --- Texts ---------------------------------------------------------------------------------------


def bleu(rows: Rows, lowercase: bool = False) -> Score | None:
    """Corpus BLEU, smoothed as sacreBLEU does (Chen & Cherry 2014, method 3); between several languages the
    mean over the directions, of several tasks the mean over those with answers of four words."""
    if not tell(rows, "made", "true"):
        return None
    again = partial(bleu, lowercase=lowercase)
    if several(rows, "direction"):
        return over(rows, "direction", again)
    if several(rows, "task"):
        long = {row["task"] for row in rows if len(row["true"].split()) >= LONGER}
        return over(rows, "task", lambda some: again(some) if some[0]["task"] in long else None)
    language = str(rows[0].get("target_language", ""))
    metric = bleu_of(language, lowercase=lowercase, effective_order=True)
    found = [metric.sentence_score(row["made"], [row["true"]]) for row in rows]
    parts = np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in found], dtype=float)

    def score(drawn: Numbers) -> Numbers:
        sums = drawn @ parts
        counts, totals = sums[:, :ORDERS], sums[:, ORDERS : 2 * ORDERS]
        made, true = sums[:, -2], sums[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            # The n-th order without a match counts as 1 / 2, 1 / 4 ... of one.
            empty = (counts == 0) & (totals > 0)
            smoothed = np.where(empty, 0.5 ** np.cumsum(empty, axis=1), counts)
            precision = np.exp(np.log(smoothed / totals).mean(axis=1))
            brevity = np.where(made < true, np.exp(1 - true / made), 1.0)
            whole = 100 * brevity * precision
        none = (counts.sum(1) == 0) | (totals == 0).any(1) | (made == 0)
        return np.where(none, 0.0, whole)

    return score


def correlation(rows: Rows, ranked: bool) -> Score | None:
    """Pearson's of the true numbers and those made, or, over their ranks, Spearman's; 0 where all of one
    side are equal."""
    parts = columns(rows, "true_number", "made_number")
    if parts is None:
        return None

    def score(drawn: Numbers) -> Numbers:
        count = drawn.sum(1, keepdims=True)
        sides = [ranks(side, drawn) if ranked else side[None] for side in parts.T]
        one, other = (side - (drawn * side).sum(1, keepdims=True) / count for side in sides)
        spread = np.sqrt((drawn * one**2).sum(1) * (drawn * other**2).sum(1))
        return np.where(spread > 0, (drawn * one * other).sum(1) / np.where(spread, spread, 1), 0.0)

    return score


def ranks(values: Numbers, drawn: Numbers) -> Numbers:
    """Of each value its rank among those drawn, ``(resamples, examples)``: equal ones share the mean."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    often = np.add.reduceat(drawn[:, order], np.searchsorted(group[order], np.unique(group)), 1)
    return (often.cumsum(1) - often / 2 + 0.5)[:, group]


def answers(rows: Rows, name: str) -> Score | None:
    """The mean of a number of each answer; of several tasks, the mean over these."""
    metric = partial(ratio, above=name)
    return over(rows, "task", metric) if several(rows, "task") else metric(rows)


def several(rows: Rows, name: str) -> bool:
    """Whether rows are of several directions or tasks."""
    return tell(rows, name) and len({row[name] for row in rows}) > 1


def over(rows: Rows, name: str, metric: Callable[[Rows], Score | None]) -> Score | None:
    """The mean of what a metric makes of the rows of each direction or task, of those where it does."""
    places: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        places.setdefault(row[name], []).append(i)
    found = [(mine, metric([rows[i] for i in mine])) for mine in places.values()]
    parts = [(mine, one) for mine, one in found if one is not None]

    def score(drawn: Numbers) -> Numbers:
        return np.mean([one(drawn[:, mine]) for mine, one in parts], axis=0)

    return score if parts else None


# --- Pictures ------------------------------------------------------------------------------------


def mean_iou(rows: Rows) -> Score | None:
    """The mean over the classes that occur, in truth or predictions, of their IoU over all pixels."""
    parts = columns(rows, "pixels_both", "pixels_made", "pixels_true")
    if parts is None:
        return None

    def score(drawn: Numbers) -> Numbers:
        both, made, true = np.moveaxis(np.tensordot(drawn, parts, 1), 1, 0)
        either = made + true - both  # (resamples, classes)
        known = (either > 0).sum(1)
        return (both / np.maximum(either, 1)).sum(1) / np.maximum(known, 1)

    return score


def mean_average_precision(rows: Rows, thresholds: Sequence[int] = range(10)) -> Score | None:
    """COCO's mAP, over all areas and with 100 boxes, of rows by :func:`tasks.training.coco_metrics.matches`.

    Args:
        thresholds: places in COCO's list of ten IoUs.
    """
    if not tell(rows, "objects", "found"):
        return None
    kinds = sorted({kind for row in rows for kind in row["objects"]})
    objects = np.array([[row["objects"].count(kind) for kind in kinds] for row in rows], float)
    found = [(i, *one) for i, row in enumerate(rows) for one in row["found"]]
    table = np.array(found, dtype=float).reshape(-1, 5)
    table = table[np.argsort(-table[:, 2], kind="stable")]
    picture, kind, bits = table[:, 0].astype(int), table[:, 1], table[:, 3:].astype(int)
    # (boxes, 2, thresholds): matched, ignored.
    flags = (bits[:, :, None] >> np.arange(len(THRESHOLDS)) & 1).astype(bool)
    mine = [np.flatnonzero(kind == one) for one in kinds]

    def score(drawn: Numbers) -> Numbers:
        total = drawn @ objects  # (resamples, classes)
        often = np.ascontiguousarray(drawn.T)
        area = np.zeros_like(total)
        for i, boxes in enumerate(mine):
            times = often[picture[boxes]]  # (boxes, resamples)
            seen = times.cumsum(0)
            for k in thresholds:
                hit, ignored = flags[boxes, 0, k], flags[boxes, 1, k]
                left = seen
                if ignored.any():
                    left = seen - (times * ignored[:, None]).cumsum(0)
                area[:, i] += average_precision(times[hit].cumsum(0), left[hit], total[:, i])
        known = np.maximum((total > 0).sum(1), 1)
        return area.sum(1) / len(thresholds) / known

    return score


def average_precision(true: Numbers, seen: Numbers, total: Numbers) -> Numbers:
    """Precision at 101 recalls, the best at each recall or a higher one, and their mean.

    Args:
        true, seen: ``(hits, resamples)``: at each box that found an object, in the order of their
            scores, how many had found one so far, and how many boxes there were.
        total: ``(resamples,)`` objects.

    Returns:
        ``(resamples,)``, 0 without objects.
    """
    precision = true / np.maximum(seen, 1)
    best = np.zeros((len(true) + 1, len(total)))  # the last is that of recalls never reached
    best[:-1] = np.maximum.accumulate(precision[::-1])[::-1]
    # The least number of hits with which true / total, as computed, is at least each recall.
    some = np.maximum(total, 1)[:, None]
    least = np.floor(RECALLS * some) - 1
    for _ in range(2):
        least += least / some < RECALLS
    # One search for all resamples, each in a range of numbers of its own.
    each = np.arange(len(total))[:, None]
    shift = each * (some.max() + 1)
    place = np.searchsorted((true.T + shift).ravel(), np.maximum(least, 0) + shift)
    return np.where(total > 0, best[place - each * len(true), each].mean(1), 0.0)


def accuracy(rows: Rows) -> Score | None:
    """Of examples, or of tokens where an example has several to get right."""
    return ratio(rows, "correct") or ratio(rows, "right", "tokens")


mean_loss = partial(ratio, above="loss", below="tokens")
METRICS: dict[str, Callable[[Rows], Score | None]] = {
    "accuracy": accuracy,
    "bleu": bleu,
    "bleu_lowercase": partial(bleu, lowercase=True),
    "exact": partial(ratio, above="exact"),
    "exact_match": partial(answers, name="exact_match"),
    "f1": partial(answers, name="f1"),
    "f1_micro": partial(ratio, above="labels_right", below="labels_both"),
    "rmse": partial(ratio, above="squared_error", change=np.sqrt),
    "loss": mean_loss,
    "perplexity": partial(mean_loss, change=np.exp),
    "bits_per_byte": partial(ratio, above="loss", below="bytes", change=lambda x: x / math.log(2)),
    "spearman": partial(correlation, ranked=True),
    "pearson": partial(correlation, ranked=False),
    "miou": mean_iou,
    "map": mean_average_precision,
    "map_50": partial(mean_average_precision, thresholds=[0]),
    "map_75": partial(mean_average_precision, thresholds=[5]),
}
"""Names of test metrics, without "test/"."""
