"""What the regressions of texts and of pictures share: a number of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.heads.problem import answers
from tasks.errors import UserError
from tasks.runs.gathering import gather
from tasks.training.by_class import WORST
from tasks.training.class_task import given_of, places_of
from tasks.training.correlation import correlations
from tasks.training.problem import teach
from tasks.training.reading import said
from tasks.training.task import Task


class Rated(NamedTuple):
    """A text, if it is one, its number, the one that the model gives, and what to list of it."""

    text: str
    true: float
    made: float
    record: dict[str, Any]


class ValueTask(Task):
    """Train a model on the squared error of a number; Spearman's and Pearson's correlation, and the root of
    the mean squared error, over a split.

    A model learns the numbers as they are, without a sigmoid: what it gives is a number of the data's own
    kind, as transformers has it. (A published head that says a sigmoid is evaluated so, until it is
    trained.) A head that begins at zero begins at the mean of the training numbers, so that training does
    not set out by finding that.

    Args:
        model: the model, or what builds it from the number of classes, which is 1: ``(batch, 1)``.
        options: of :class:`~tasks.training.task.Task`.
    """

    monitor = ("val/spearman", "max")
    inputs: str
    """What a model is given, in the plural."""

    def __init__(self, model: Callable[[int], nn.Module] | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.rated: list[Rated] = []
        """Of the split that is evaluated, of this process."""
        self.tables: dict[str, list[dict[str, Any]]] = {}
        """What a test found: the worst errors."""

    def adapt_model(self) -> None:
        super().adapt_model()
        teach(self.model, self.data)

    @torch.no_grad()
    def on_fit_start(self) -> None:
        mean = getattr(self.data, "mean", None)
        for module in self.model.modules():
            fresh = isinstance(module, nn.Linear) and module.out_features == 1
            if fresh and module.bias is not None and mean is not None and not module.weight.any():
                module.bias.fill_(mean())

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """``(batch, 1)`` in float32, by the contract of the task's members."""
        raise NotImplementedError

    def numbers(self, batch: dict[str, Any], taught: bool = False) -> Tensor:
        """``(batch)`` in float32 at least.

        Args:
            taught: what is learnt, whatever the head says of a published model.

        Raises:
            UserError: the model gives more than one number of an input.
        """
        logits = self.logits(batch)
        if logits.dim() != 2 or logits.shape[1] != 1:
            raise UserError(
                f"the model gives {tuple(logits.shape)} of {len(logits)} {self.inputs}, but a regression "
                "needs (batch, 1): of a model of ours, set num_classes=1."
            )
        return logits[:, 0] if taught else answers(self.model, logits)[:, 0]

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        made = self.numbers(batch, taught=True)
        return {"loss": F.mse_loss(made, batch["labels"].to(made.dtype))}

    # --- Evaluation ---

    def evaluate(self, batch: dict[str, Any], split: str) -> list[float]:
        """Log the loss, and keep what was made of the inputs; returns their numbers."""
        made, true = self.numbers(batch), batch["labels"].float()
        self.log_mean({f"{split}/loss": F.mse_loss(made, true)}, len(true))
        texts = said(batch) if "text" in batch else [""] * len(true)
        rows = zip(texts, true.tolist(), made.tolist(), strict=True)
        self.rated += [Rated(*row, given_of(batch, i)) for i, row in enumerate(rows)]
        return made.tolist()

    def on_validation_epoch_start(self) -> None:
        self.rated = []

    def on_test_epoch_start(self) -> None:
        self.rated = []

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "val")

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By example: its number, the one that was made, and the square of the error."""
        made, true = self.evaluate(batch, "test"), batch["labels"].tolist()
        squares = [(m - t) ** 2 for m, t in zip(made, true, strict=True)]
        numbers = {"made_number": made, "true_number": true, "squared_error": squares}
        return {**places_of(batch), **numbers}

    def on_validation_epoch_end(self) -> None:
        self.score("val")

    def on_test_epoch_end(self) -> None:
        """Also as a table: the errors that were largest."""
        rated = sorted(self.score("test"), key=lambda one: -abs(one.made - one.true))
        self.tables = {
            "worst": [
                {**one.record, "true": round(one.true, 6), "made": round(one.made, 6)}
                for one in rated[:WORST]
            ]
        }

    def score(self, split: str) -> list[Rated]:
        """Log correlations and error over the inputs of all processes; returns these."""
        rated, self.rated = gather(self.rated), []
        true, made = [one.true for one in rated], [one.made for one in rated]
        for name, value in correlations(true, made).items():
            self.log(f"{split}/{name}", value, prog_bar=True)
        squares = [(m - t) ** 2 for m, t in zip(made, true, strict=True)]
        self.log(f"{split}/rmse", math.sqrt(sum(squares) / max(1, len(squares))))
        return rated

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """Of each input its file, line and text, where known, and its number."""
        made = self.numbers(batch).tolist()
        return [{**given_of(batch, i), "value": round(one, 6)} for i, one in enumerate(made)]
