"""Text regression: a text in, or a pair of texts, a number out; how alike two sentences are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.errors import UserError
from tasks.runs.gathering import gather
from tasks.training.by_class import WORST
from tasks.training.class_task import given_of, places_of
from tasks.training.correlation import correlations
from tasks.training.reading import check_room, read, said
from tasks.training.task import Task

SHOWN = 8
"""Texts among the samples."""


class Rated(NamedTuple):
    """A text, its number, the one that the model gives, and what to list of it."""

    text: str
    true: float
    made: float
    record: dict[str, Any]


class TextRegression(Task):
    """Squared error; Spearman's and Pearson's correlation over a split; texts with both numbers.

    A model learns the numbers as they are, without a sigmoid: what it gives is a number of the data's own
    kind, as transformers has it. A head that begins at zero begins at the mean of the training numbers,
    so that training does not set out by finding that.

    A batch has ``input_ids (batch, tokens)``, int64, ``labels (batch)``, float32, and
    ``mask (batch, tokens)``, True = a token, where texts are padded; of pairs of texts also
    ``token_types (batch, tokens)``, int64, for models that tell them apart; to be shown in samples also
    ``text``, a list, and ``pair``.

    Args:
        model: the model, or what builds it from the number of classes, which is 1: ``(batch, 1)``.
        options: of :class:`~tasks.training.task.Task`.
    """

    fields = ("input_ids", "labels", "mask", "token_types")
    monitor = ("val/spearman", "max")

    def __init__(self, model: Callable[[int], nn.Module] | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.rated: list[Rated] = []
        """Of the split that is evaluated, of this process."""
        self.tables: dict[str, list[dict[str, Any]]] = {}
        """What a test found: the worst errors."""

    def configure_model(self) -> None:
        super().configure_model()
        check_room(self.model, self.data)

    @torch.no_grad()
    def on_fit_start(self) -> None:
        mean = getattr(self.data, "mean", None)
        for module in self.model.modules():
            fresh = isinstance(module, nn.Linear) and module.out_features == 1
            if fresh and module.bias is not None and mean is not None and not module.weight.any():
                module.bias.fill_(mean())

    def numbers(self, batch: dict[str, Any]) -> Tensor:
        """``(batch)`` in float32 at least.

        Raises:
            UserError: the model gives more than one number of a text.
        """
        logits = read(self.model, batch)
        if logits.dim() != 2 or logits.shape[1] != 1:
            raise UserError(
                f"the model gives {tuple(logits.shape)} of {len(logits)} texts, but a regression needs "
                "(batch, 1): of a model of ours, set num_classes=1."
            )
        return logits[:, 0]

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        made = self.numbers(batch)
        return {"loss": F.mse_loss(made, batch["labels"].to(made.dtype))}

    # --- Evaluation ---

    def evaluate(self, batch: dict[str, Any], split: str) -> list[float]:
        """Log the loss, and keep what was made of the texts; returns their numbers."""
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
        """By example: its number, and the one that was made."""
        made, true = self.evaluate(batch, "test"), batch["labels"].tolist()
        return {**places_of(batch), "made_number": made, "true_number": true}

    def on_validation_epoch_end(self) -> None:
        rated = self._score("val")
        spread = rated[:: max(1, len(rated) // SHOWN)][:SHOWN]
        self.samples = [
            f"{one.text}\n    made: {one.made:.3f}\n    true: {one.true:.3f}"
            for one in spread
            if one.text
        ]

    def on_test_epoch_end(self) -> None:
        """Also as a table: the errors that were largest."""
        rated = sorted(self._score("test"), key=lambda one: -abs(one.made - one.true))
        self.tables = {
            "worst": [
                {**one.record, "true": round(one.true, 6), "made": round(one.made, 6)}
                for one in rated[:WORST]
            ]
        }

    def _score(self, split: str) -> list[Rated]:
        """Log the correlations over the texts of all processes; returns these."""
        rated, self.rated = gather(self.rated), []
        for name, value in correlations(
            [one.true for one in rated], [one.made for one in rated]
        ).items():
            self.log(f"{split}/{name}", value, prog_bar=True)
        return rated

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """Of each text its line and itself, where known, and its number."""
        made = self.numbers(batch).tolist()
        return [{**given_of(batch, i), "value": round(one, 6)} for i, one in enumerate(made)]
