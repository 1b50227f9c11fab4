"""What tasks that compare two answers share: how a batch is read, and how well they are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.errors import UserError

SHOWN = 8
"""Pairs among the samples."""
BINS = 10
GIVEN = ("index", "prompt", "chosen", "rejected", "file", "line")
"""What a batch may say of its pairs."""


def check_pairs(batch: dict[str, Any]) -> None:
    """Refuse rows that are no pairs.

    Raises:
        UserError: see above.
    """
    shape = tuple(batch["input_ids"].shape)
    if len(shape) != 3 or shape[1] != 2:
        raise UserError(
            f"the loader gives input_ids {shape}, but pairs are (pairs, 2, tokens): of each the prompt with "
            "the better answer, then with the worse one."
        )


def flat(batch: dict[str, Any], name: str) -> Any:
    """A field of a batch as rows, the two of each pair one after the other; None where there is none."""
    return batch[name].flatten(0, 1) if batch.get(name) is not None else None


def won(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Of each pair 1 where the better answer has more, 0 where it has less, and half of that where both
    have the same."""
    return ((chosen > rejected).double() + (chosen >= rejected).double()) / 2


def calibration_error(chosen: Tensor, rejected: Tensor, bins: int = BINS) -> float:
    """How far what a model says of its own sureness is from what it gets right: the expected calibration error
    (Guo et al. 2017, equation 3), ``sum_b n_b / n |accuracy_b - confidence_b|``.

    A pair's confidence is that of the answer with the greater reward, ``sigmoid(|r_chosen - r_rejected|)``; the
    bins are equally wide between 0.5 and 1. A bin's accuracy is the mean of :func:`won`.

    Args:
        chosen, rejected: rewards ``(pairs)``.
    """
    confidence = (chosen - rejected).double().abs().sigmoid()
    place = ((confidence - 0.5) * 2 * bins).long().clamp(0, bins - 1)
    off = torch.zeros(bins, dtype=torch.double)
    off.index_add_(0, place.cpu(), (won(chosen, rejected) - confidence).cpu())
    return float(off.abs().sum() / max(1, len(confidence)))


def judged(batch: dict[str, Any], chosen: Tensor, rejected: Tensor) -> list[dict[str, Any]]:
    """Of each pair of a batch what it says of it, and both rewards."""
    names = [name for name in GIVEN if name in batch]
    sides = ("reward_chosen", chosen.tolist()), ("reward_rejected", rejected.tolist())
    table = {**{name: batch[name] for name in names}, **dict(sides)}
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def ahead(row: dict[str, Any]) -> float:
    """By how much the better answer has the greater reward."""
    return float(row["reward_chosen"] - row["reward_rejected"])


def columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a test tells comparisons of each pair."""
    names = ("line", "reward_chosen", "reward_rejected")
    found = {name: [row[name] for row in rows] for name in names if name in rows[0]}
    return {**found, "correct": [(1 + (ahead(row) > 0) - (ahead(row) < 0)) / 2 for row in rows]}


def shown(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Some pairs as text, each answer with its reward."""
    spread = rows[:: max(1, len(rows) // SHOWN)][:SHOWN]
    return [
        f"{row['prompt']}\n    {row['reward_chosen']:+.3f} chosen: {row['chosen']}\n"
        f"    {row['reward_rejected']:+.3f} rejected: {row['rejected']}"
        for row in spread
        if "prompt" in row
    ]
