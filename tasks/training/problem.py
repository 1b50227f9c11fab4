"""What a head is taught to say (:mod:`family.heads.problem`), and several labels an example: loss and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from family.heads.problem import MULTI
from tasks.data.base import FamilyData
from tasks.errors import UserError
from tasks.training.by_class import share, unlike

MONITORS = {MULTI: ("val/mean_average_precision", "max")}
"""What chooses the best checkpoint, where labels ask for another metric than the task's own."""
LEAST = 0.5
"""How sure a model must be of a label that it is taken to say."""


def teach(model: Any, data: Any) -> None:
    """Let a model's head say what data of ours teach it; others leave it what the model says itself."""
    if isinstance(data, FamilyData):
        model.problem_type = data.problem_type


def monitor_of(task: Any, data: Any) -> Any:
    """The metric that the best checkpoint of a task on these data is chosen by, and how it is better."""
    if hasattr(task, "monitor_on"):
        return task.monitor_on(data)
    own = getattr(task, "monitors", {})
    return own.get(getattr(data, "problem_type", None), getattr(task, "monitor", None))


def label_loss(
    logits: Tensor, labels: Tensor, smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """The binary cross-entropy of each label, and the mean of all.

    Args:
        logits, labels: ``(batch, labels)``; 1 where an example has a label, or how surely.
        smoothing: this share of a label's mass goes half to yes and half to no.
        weights: ``(labels)``, of the terms of each.

    Raises:
        UserError: labels of another shape.
    """
    if labels.shape != logits.shape:
        raise UserError(
            f"the model gives {tuple(logits.shape)}, but the labels are {tuple(labels.shape)}: of several "
            "labels an example there must be a number for each, 0 or 1."
        )
    wanted = labels.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, wanted, weights)


class LabelScores(nn.Module):
    """Average precision over all thresholds, its mean over the labels that occur, and F1 at one half: over
    all decisions ("micro"), and as the mean over the labels ("macro"). Counts over all processes."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.precision = MultilabelAveragePrecision(labels, average=None)
        self.micro = MultilabelF1Score(labels, threshold=LEAST, average="micro")
        self.macro = MultilabelF1Score(labels, threshold=LEAST, average="macro")

    def update(self, chances: Tensor, labels: Tensor) -> None:
        """Probabilities and truth of a batch, ``(batch, labels)``."""
        for metric in (self.precision, self.micro, self.macro):
            metric.update(chances, labels.int())

    def compute(self) -> dict[str, Tensor]:
        """The scores of all batches since the last time."""
        each = self.precision.compute().nan_to_num()
        occurring = each[each > 0]  # of a label that no example has it is 0, of others never
        found = {
            "mean_average_precision": occurring.mean() if len(occurring) else each.sum(),
            "f1_micro": self.micro.compute(),
            "f1_macro": self.macro.compute(),
        }
        for metric in (self.precision, self.micro, self.macro):
            metric.reset()
        return found


def named(chosen: Tensor, names: Sequence[str]) -> list[str]:
    """The labels of each row of ``(batch, labels)`` bool as one text; "none" of none."""
    return [
        ", ".join(name for name, one in zip(names, row, strict=True) if one) or "none"
        for row in chosen.tolist()
    ]


def label_table(true: Tensor, made: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each label, and how often it is ``true`` and ``made``; of ``(examples,
    labels)`` bool."""
    sums = [one.sum(0).tolist() for one in (true & made, made, true)]
    return [
        {
            "label": name,
            "precision": share(hit, m),
            "recall": share(hit, t),
            "f1": share(2 * hit, m + t),
            "true": t,
            "made": m,
        }
        for name, hit, m, t in zip(unlike(names), *sums, strict=True)
    ]


def label_counts(true: Tensor, made: Tensor) -> dict[str, list[int]]:
    """Of each example what the micro F1 is the ratio of: twice the labels that are right, and all of both."""
    both = 2 * (true & made).sum(1)
    return {"labels_right": both.tolist(), "labels_both": (true.sum(1) + made.sum(1)).tolist()}


def surprise(logits: Tensor, labels: Tensor) -> list[float]:
    """The loss of each example."""
    each = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return each.mean(1).tolist()


def stacked(rows: Sequence[Sequence[bool]]) -> Tensor:
    """``(examples, labels)`` bool."""
    return torch.tensor([list(row) for row in rows], dtype=torch.bool)
