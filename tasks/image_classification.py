"""Image classification: a picture in, a class out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tasks.pictures import BAD, GOOD, sheet, to_picture
from tasks.task import Task

SHOWN = 16
"""Pictures of the sheet."""


class ImageClassification(Task):
    """Cross-entropy; top-1 and top-5 accuracy; a sheet of pictures with predictions and truth.

    Args:
        model: what builds the model from the number of classes.
        label_smoothing: mass spread evenly over the classes, in training (Szegedy et al. 2016).
        options: of :class:`~tasks.task.Task`.
    """

    monitor = ("val/accuracy", "max")

    def __init__(
        self, model: Callable[[int], nn.Module], label_smoothing: float = 0.0, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.label_smoothing = label_smoothing

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        logits = self.model(batch["pixel_values"]).float()
        # Labels are ids, or after mixup and cutmix probabilities: cross-entropy takes both.
        loss = F.cross_entropy(logits, batch["labels"], label_smoothing=self.label_smoothing)
        self.log_training("loss", loss.detach(), prog_bar=True)
        return loss

    def _evaluate(self, batch: dict[str, Any], split: str) -> Tensor:
        logits, labels = self.model(batch["pixel_values"]).float(), batch["labels"]
        top = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        metrics = {
            f"{split}/loss": F.cross_entropy(logits, labels),
            f"{split}/accuracy": top[:, 0].float().mean(),
            f"{split}/accuracy_top5": top.any(1).float().mean(),
        }
        self.log_dict(metrics, on_epoch=True, batch_size=len(labels), sync_dist=True, prog_bar=True)
        return logits

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        logits = self._evaluate(batch, "val")
        if index == 0:
            self._show(batch, logits)

    def test_step(self, batch: dict[str, Any], index: int) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        scores, ids = self.model(batch["pixel_values"]).float().softmax(-1).max(-1)
        names = self.data.assets()["labels"]
        pairs = zip(ids.tolist(), scores.tolist(), strict=True)
        return [{"label": names[i], "score": round(score, 6)} for i, score in pairs]

    def _show(self, batch: dict[str, Any], logits: Tensor) -> None:
        names = self.data.assets()["labels"]
        pixels = self.preprocess.restore(batch["pixel_values"][:SHOWN])
        guessed = logits[:SHOWN].argmax(-1).tolist()
        true = batch["labels"][:SHOWN].tolist()
        words = [f"made: {names[g]}\ntrue: {names[t]}" for g, t in zip(guessed, true, strict=True)]
        marks = [GOOD if g == t else BAD for g, t in zip(guessed, true, strict=True)]
        self.pictures = {"predictions": sheet([to_picture(p) for p in pixels], words, marks)}
