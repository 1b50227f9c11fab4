"""What a test found, class by class, and where it went wrong most: tables of a run's folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

WORST = 100
"""Errors that are listed."""


def confusion_table(counts: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each true class, a column for each that was made.

    Args:
        counts: ``(classes, classes)``, rows the truth.
    """
    named = unlike(names)
    rows = zip(named, counts.tolist(), strict=True)
    return [{"true \\ made": name, **dict(zip(named, row, strict=True))} for name, row in rows]


def class_table(counts: Tensor, names: Sequence[str], iou: bool = False) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class, and how often it is ``true`` and ``made``; empty where
    there is nothing to divide by.

    Args:
        counts: see :func:`confusion_table`.
        iou: with the intersection over union.
    """
    both, made, true = (x.tolist() for x in (counts.diagonal(), counts.sum(0), counts.sum(1)))
    rows = []
    for name, hit, m, t in zip(unlike(names), both, made, true, strict=True):
        row = {"class": name, "precision": share(hit, m), "recall": share(hit, t)}
        row["f1"] = share(2 * hit, m + t)
        if iou:
            row["iou"] = share(hit, m + t - hit)
        rows.append({**row, "true": t, "made": m})
    return rows


def share(part: float, whole: float) -> float | str:
    return round(part / whole, 6) if whole else ""


def unlike(names: Sequence[str]) -> list[str]:
    """Names of classes; those that are shared have their number behind them."""
    count = Counter(names)
    return [n if count[n] == 1 else f"{n} ({i})" for i, n in enumerate(names)]


def counted(true: Sequence[int], made: Sequence[int], classes: int) -> Tensor:
    """How often each class was made of each true one: ``(classes, classes)``."""
    places = torch.tensor(list(true)) * classes + torch.tensor(list(made))
    return torch.bincount(places, minlength=classes**2).view(classes, classes)
