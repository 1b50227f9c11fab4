"""Numeric series: a class of each, numbers of each, or the steps that follow."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassF1Score

from family.heads.problem import REGRESSION
from family.inputs.series import SeriesPreprocess
from tasks.errors import UserError
from tasks.runs.gathering import gather
from tasks.training.by_class import WORST
from tasks.training.class_task import ClassTask, given_of
from tasks.training.problem import MONITORS

BEST = {**MONITORS, REGRESSION: ("val/rmse", "min")}
"""What chooses the best checkpoint, where it is not accuracy."""
SHOWN = 8
"""Answers of a validation that are written down."""


class Series(ClassTask):
    """Of classes: cross-entropy; accuracy, macro-F1, and after a test the confusion of classes. Of numbers and
    forecasts: the squared error of numbers of mean 0 and deviation 1; then, in the data's own unit, the mean
    absolute error, the root of the mean squared one, and R2, each as a mean over the targets; a forecast's
    stand beside those of a simple rule, ``mae_naive`` and ``rmse_naive``.

    A batch has ``values (batch, steps, channels)``, ``step_mask (batch, steps)``, True = a step, and ``labels``:
    ``(batch)`` int64 for classes, or float32 for numbers, ``(batch, numbers)``. The model is called
    ``model(values, step_mask)``, or ``model(values)`` by a batch without a mask, and gives ``(batch, classes)``
    or ``(batch, numbers)``.

    Args:
        model: the model, or what builds it from ``num_classes`` and, where it takes that, ``channels``.
        options: of :class:`~tasks.training.weighting.WeightedTask`; weights and smoothing are of classes.
    """

    fields = ("values", "labels", "step_mask")
    monitors = BEST

    def __init__(self, model: Callable[[int], nn.Module] | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.f1: MulticlassF1Score | None = None
        self.sums: Tensor | None = None
        """Of the split that is evaluated, see :func:`sums_of`; of this process."""
        self.worst: list[tuple[float, dict[str, Any]]] = []

    def configure_model(self) -> None:
        super().configure_model()
        classes = self.num_classes or 0
        if not self.numeric and classes > 1 and self.f1 is None:
            # Before processes part: it counts over all of them.
            self.f1 = MulticlassF1Score(classes, average="macro")

    @property
    def numeric(self) -> bool:
        """Whether it gives numbers, and not classes."""
        return getattr(self.model, "problem_type", None) == REGRESSION

    @property
    def scale(self) -> SeriesPreprocess | None:
        """What makes the data's numbers of a model's; None of data that are not ours."""
        fields = self.assets().get("preprocess")
        return None if fields is None else SeriesPreprocess.from_dict(fields)

    @property
    def chance(self) -> float | None:
        """Of numbers the squared error of who says their mean, of classes that of who knows how many."""
        if self.numeric:
            return None if self.scale is None else 1.0
        return super().chance

    def logits(self, batch: dict[str, Any]) -> Tensor:
        mask = batch.get("step_mask")
        return self.model(batch["values"], *(() if mask is None else (mask,))).float()

    def numbers(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """What the model gives, and what is true, ``(batch, numbers)``.

        Raises:
            UserError: they are not of one shape.
        """
        made, true = self.logits(batch), batch["labels"].float()
        true = true[:, None] if true.dim() == 1 else true
        if made.shape != true.shape:
            raise UserError(
                f"the model gives {tuple(made.shape)} of {len(true)} series, but their numbers are "
                f"{tuple(true.shape)}: of a model of ours, set num_classes={true.shape[1]}."
            )
        return made, true

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        if batch["labels"].is_floating_point():
            return {"loss": F.mse_loss(*self.numbers(batch))}
        return super().loss(batch)

    # --- Evaluation ---

    def evaluate(self, batch: dict[str, Any], split: str) -> Tensor:
        """Log the loss, and keep what metrics are made of; returns what the model gave."""
        if not batch["labels"].is_floating_point():
            logits = super().evaluate(batch, split)
            if self.f1 is not None:
                self.f1.update(logits, batch["labels"])
            return logits
        made, true = self.numbers(batch)
        self.log_mean({f"{split}/loss": F.mse_loss(made, true)}, len(true))
        found = sums_of(self.by_target(made), self.by_target(true))
        if "naive" in batch:
            naive = sums_of(self.by_target(batch["naive"]), self.by_target(true))
            found = torch.cat([found, naive[:2]])
        self.sums = found if self.sums is None else self.sums + found
        return made

    def by_target(self, numbers: Tensor) -> Tensor:
        """``(batch, numbers)`` as ``(batch, targets, steps)``; each a target by itself, where nobody says."""
        scale = self.scale
        return numbers[..., None] if scale is None else scale.by_target(numbers)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        made = self.evaluate(batch, "val")
        if index == 0:
            self.samples = self.shown(batch, made)

    def shown(self, batch: dict[str, Any], made: Tensor) -> list[str]:
        """The first series of a batch, what the model says of them, and what is true."""
        names = batch.get("series", list(range(len(made))))[:SHOWN]
        if batch["labels"].is_floating_point():
            rows = zip(
                names,
                self.in_units(made[:SHOWN]),
                self.in_units(batch["labels"][:SHOWN]),
                strict=True,
            )
            return [f"{name}: {m}, true: {t}" for name, m, t in rows]
        worded = self.worded(made[:SHOWN], batch["labels"][:SHOWN])
        return [f"{name}: {m}, true: {t}" for name, (t, m) in zip(names, worded, strict=True)]

    def in_units(self, numbers: Tensor) -> list[dict[str, Any]]:
        """Numbers of a model, or those it is to learn, in the data's own unit, by target."""
        if self.scale is not None:
            return self.scale.said(numbers.reshape(len(numbers), -1))
        rows = numbers.reshape(len(numbers), -1).tolist()
        return [{"value": row[0] if len(row) == 1 else row} for row in rows]

    def on_validation_epoch_end(self) -> None:
        self.score("val")

    def score(self, split: str) -> list[dict[str, Any]]:
        """Log what a split came to; returns the errors of each target."""
        if self.f1 is not None:
            self.log(f"{split}/f1_macro", self.f1.compute(), prog_bar=True)
            self.f1.reset()
        kept, self.sums = gather([] if self.sums is None else [self.sums.tolist()]), None
        if not kept:
            return []
        rows = errors_of(np.sum(kept, 0), self.scale)
        for name in [name for name in rows[0] if name != "target"]:
            mean = sum(row[name] for row in rows) / len(rows)
            self.log(f"{split}/{name}", mean, prog_bar=name in ("mae", "rmse", "r2"))
        return rows

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By example: of classes as :class:`~tasks.training.class_task.ClassTask`, of numbers the square of
        the error, where there is one target."""
        if not batch["labels"].is_floating_point():
            return super().test_step(batch, index)
        made = self.evaluate(batch, "test")
        errors = (made - batch["labels"].reshape(made.shape)).double().square().mean(1).tolist()
        told = zip(self.in_units(made), self.in_units(batch["labels"]), strict=True)
        for i, (m, t) in enumerate(told):
            record = {**(given_of(batch, i) or {"example": i}), "made": m, "true": t}
            self.worst.append((errors[i], record))
        self.worst = sorted(self.worst, key=lambda one: -one[0])[:WORST]
        scale = self.scale
        if scale is None or len(scale.targets) != 1:
            return {}
        return {"squared_error": [error * scale.target_std[0] ** 2 for error in errors]}

    def on_test_epoch_start(self) -> None:
        super().on_test_epoch_start()
        self.worst = []

    def on_test_epoch_end(self) -> None:
        """Also as tables: of classes their confusion; of numbers each target's errors, and the largest."""
        super().on_test_epoch_end()
        if targets := self.score("test"):
            worst = sorted(gather(self.worst), key=lambda one: -one[0])[:WORST]
            self.tables = {"targets": targets, "worst": [record for _, record in worst]}

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """Of each series its name, and label, score and probabilities, or the number of each target."""
        if not self.numeric:
            return super().predict_step(batch, index)
        told = self.in_units(self.logits(batch))
        return [{**given_of(batch, i), **one} for i, one in enumerate(told)]


def sums_of(made: Tensor, true: Tensor) -> Tensor:
    """Of each target ``(5, targets)`` float64: the sums of absolute and squared errors, of the true numbers and
    their squares, and how many there are; from both ``(batch, targets, steps)``."""
    made, true = made.detach().cpu().double(), true.detach().cpu().double()
    error = made - true
    parts = error.abs(), error.square(), true, true.square(), torch.ones_like(true)
    return torch.stack([part.sum((0, 2)) for part in parts])


def errors_of(sums: np.ndarray, scale: SeriesPreprocess | None) -> list[dict[str, Any]]:
    """Errors of each target in the data's own unit, from sums over a split."""
    rows = []
    for i, (absolute, squares, total, total_squares, count, *naive) in enumerate(sums.T.tolist()):
        name, unit = (f"{i}", 1.0) if scale is None else (scale.targets[i], scale.target_std[i])
        spread = total_squares - total**2 / count
        row = {"mae": unit * absolute / count, "rmse": unit * math.sqrt(squares / count)}
        row["r2"] = 1 - squares / spread if spread > 0 else math.nan
        if naive:
            row["mae_naive"] = unit * naive[0] / count
            row["rmse_naive"] = unit * math.sqrt(naive[1] / count)
        rows.append({"target": name, **row})
    return rows
