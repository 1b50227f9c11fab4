"""Text regression: a text in, or a pair of texts, a number out; how alike two sentences are."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tasks.training.correlation import correlations as correlations
from tasks.training.reading import check_room, read
from tasks.training.value_task import ValueTask

SHOWN = 8
"""Texts among the samples."""


class TextRegression(ValueTask):
    """Squared error; correlations over a split; texts with both numbers.

    A batch has ``input_ids (batch, tokens)``, int64, ``labels (batch)``, float32, and
    ``mask (batch, tokens)``, True = a token, where texts are padded; of pairs of texts also
    ``token_types (batch, tokens)``, int64, for models that tell them apart; to be shown in samples also
    ``text``, a list, and ``pair``.
    """

    fields = ("input_ids", "labels", "mask", "token_types")
    inputs = "texts"

    def configure_model(self) -> None:
        super().configure_model()
        check_room(self.model, self.data)

    def logits(self, batch: dict[str, Any]) -> Tensor:
        return read(self.model, batch)

    def on_validation_epoch_end(self) -> None:
        rated = self.score("val")
        spread = rated[:: max(1, len(rated) // SHOWN)][:SHOWN]
        self.samples = [
            f"{one.text}\n    made: {one.made:.3f}\n    true: {one.true:.3f}"
            for one in spread
            if one.text
        ]
