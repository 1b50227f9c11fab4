"""Text classification: a text in, or a pair of texts, a class out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn
from torchmetrics.classification import MulticlassF1Score

from tasks.runs.gathering import gather
from tasks.training.class_task import ClassTask
from tasks.training.reading import check_room, read, said

SHOWN = 8
"""Texts among the samples."""


class Judged(NamedTuple):
    """A text, its class or labels, and what the model made of it, with how likely that is."""

    text: str
    true: str
    made: str


class TextClassification(ClassTask):
    """Cross-entropy; accuracy, and the mean over the classes of their F1; texts with both classes. Of several
    labels each: binary cross-entropy, mean average precision, and F1.

    A batch has ``input_ids (batch, tokens)`` and ``labels (batch)``, int64, and ``mask (batch, tokens)``,
    True = a token, where texts are padded; of pairs of texts also ``token_types (batch, tokens)``, int64,
    for models that tell them apart; to be shown in samples also ``text``, a list, and ``pair``. Of several
    labels each, ``labels (batch, classes)`` are 0 or 1.
    """

    fields = ("input_ids", "labels", "mask", "token_types")

    def __init__(self, model: Callable[[int], nn.Module] | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.f1: MulticlassF1Score | None = None
        self.judged: list[Judged] = []

    def configure_model(self) -> None:
        super().configure_model()
        check_room(self.model, self.data)
        if self.num_classes and self.f1 is None and not self.several:
            # Before processes part: it counts over all of them.
            self.f1 = macro_f1(self.num_classes)

    def logits(self, batch: dict[str, Any]) -> Tensor:
        return read(self.model, batch)

    def evaluate(self, batch: dict[str, Any], split: str) -> Tensor:
        logits = super().evaluate(batch, split)
        if self.several:
            return logits
        if self.f1 is None:
            self.f1 = macro_f1(logits.shape[1]).to(logits.device)
        self.f1.update(logits, batch["labels"])
        return logits

    def on_validation_epoch_start(self) -> None:
        self.judged = []

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        logits = self.evaluate(batch, "val")
        if "text" not in batch:
            return
        rows = zip(said(batch), self.worded(logits, batch["labels"]), strict=True)
        self.judged += [Judged(text, *words) for text, words in rows]

    def on_validation_epoch_end(self) -> None:
        self._score("val")
        self.score_labels("val")
        judged = gather(self.judged)
        # Spread over the set: batches are sorted by length.
        spread = judged[:: max(1, len(judged) // SHOWN)][:SHOWN]
        self.samples = [f"{j.text}\n    made: {j.made}\n    true: {j.true}" for j in spread]

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        self._score("test")

    def _score(self, split: str) -> None:
        if self.f1 is not None:
            self.log(f"{split}/f1_macro", self.f1.compute(), prog_bar=True)
            self.f1.reset()


def macro_f1(classes: int) -> MulticlassF1Score:
    return MulticlassF1Score(classes, average="macro")
