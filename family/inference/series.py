"""Numeric series to classes, numbers, or the steps that follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from family.heads.problem import REGRESSION
from family.inference.batches import TEXTS, chunks, device_of, dtype_of
from family.inference.classes import described
from family.inputs.series import SeriesPreprocess, Steps, series_batch


def judge_series(
    model: Any, series: Sequence[Steps], batch_size: int = TEXTS
) -> list[dict[str, Any]]:
    """Of each series the likeliest class and how likely each is: ``label``, ``score`` and ``probabilities``; or,
    by the model's ``problem_type``, a number by target, of a forecast the list of those that follow.

    Args:
        series: each an array ``(steps, channels)``, or lists of steps by the names of channels; with the
            channels of the training, in the data's own unit.

    Raises:
        ValueError: see :class:`~family.inputs.series.SeriesPreprocess`.
    """
    return answered(model, series_logits(model, series, batch_size))


@torch.no_grad()
def series_logits(model: Any, series: Sequence[Steps], batch_size: int = TEXTS) -> Tensor:
    """What the head gives, ``(series, numbers)``."""
    preprocess: SeriesPreprocess = model.preprocess
    device, kind, found = device_of(model), dtype_of(model), []
    rows = [preprocess(one, f"series {i}") for i, one in enumerate(series)]
    for some in chunks(rows, batch_size):
        values, mask = series_batch(some)
        found.append(model(values.to(device, kind), mask.to(device)).float())
    return torch.cat(found).cpu() if found else torch.empty(0, 0)


def answered(model: Any, logits: Tensor) -> list[dict[str, Any]]:
    """Answers as plain values, see :func:`judge_series`."""
    if not len(logits):
        return []
    if getattr(model, "problem_type", None) == REGRESSION:
        return model.preprocess.said(logits)
    return described(model, logits.softmax(-1))
