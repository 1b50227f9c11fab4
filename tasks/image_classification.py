"""Image classification: a picture in, a class out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tasks.errors import between
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
        between(0, 1, of="model.", label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing
        self.shown: list[tuple[Image.Image, str, tuple[int, int, int]]] = []

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
        # Some of each batch: sets are often sorted by class.
        share = -(-SHOWN // int(self.trainer.num_val_batches[0]))
        self._keep(batch, logits, min(share, SHOWN - len(self.shown)))

    def on_validation_epoch_end(self) -> None:
        if self.shown:
            pictures, words, marks = zip(*self.shown, strict=True)
            self.pictures = {"predictions": sheet(pictures, words, marks)}
        self.shown = []

    def test_step(self, batch: dict[str, Any], index: int) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        scores, ids = self.model(batch["pixel_values"]).float().softmax(-1).max(-1)
        names = self.data.assets()["labels"]
        pairs = zip(ids.tolist(), scores.tolist(), strict=True)
        return [{"label": names[i], "score": round(score, 6)} for i, score in pairs]

    def _keep(self, batch: dict[str, Any], logits: Tensor, count: int) -> None:
        """Remember the first pictures of a batch with what was made of them."""
        names = self.data.assets()["labels"]
        pixels = self.preprocess.restore(batch["pixel_values"][:count])
        ids = zip(logits[:count].argmax(-1).tolist(), batch["labels"][:count].tolist(), strict=True)
        for picture, (made, true) in zip(pixels, ids, strict=True):
            words = f"made: {names[made]}\ntrue: {names[true]}"
            self.shown.append((to_picture(picture), words, GOOD if made == true else BAD))
