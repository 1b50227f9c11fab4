"""Image classification: a picture in, a class out."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch import Tensor

from tasks.training.class_task import ClassTask
from tasks.training.pictures import BAD, GOOD, sheet, to_picture

SHOWN = 16
"""Pictures of the sheet."""


class ImageClassification(ClassTask):
    """Cross-entropy; accuracy, and of more than five classes that of the first five; a sheet of pictures with predictions and truth. Of several
    labels each: binary cross-entropy, mean average precision, and F1.

    A batch has ``pixel_values (batch, channels, height, width)`` and ``labels (batch)``, int64, or in
    training probabilities ``(batch, classes)``; of several labels each 0 or 1, ``(batch, classes)``.
    """

    fields = ("pixel_values", "labels")

    def logits(self, batch: dict[str, Any]) -> Tensor:
        return self.model(batch["pixel_values"]).float()

    def evaluate(self, batch: dict[str, Any], split: str) -> Tensor:
        logits, labels = super().evaluate(batch, split), batch["labels"]
        if self.several or logits.shape[1] <= 5:
            return logits  # of few classes all are among the first five
        top = logits.topk(5).indices == labels[:, None]
        self.log_mean({f"{split}/accuracy_top5": top.any(1).float().mean()}, len(labels))
        return logits

    def on_validation_epoch_start(self) -> None:
        self.shown: list[tuple[Image.Image, str, tuple[int, int, int]]] = []

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        logits = self.evaluate(batch, "val")
        # Some of each batch: sets are often sorted by class.
        share = -(-SHOWN // int(min(self.trainer.num_val_batches[0], SHOWN)))
        self._keep(batch, logits, min(share, SHOWN - len(self.shown)))

    def on_validation_epoch_end(self) -> None:
        self.score_labels("val")
        if self.shown:
            pictures, words, marks = zip(*self.shown, strict=True)
            self.pictures = {"predictions": sheet(pictures, words, marks)}

    def _keep(self, batch: dict[str, Any], logits: Tensor, count: int) -> None:
        """Remember the first pictures of a batch with what was made of them."""
        pixels = self.restored(batch["pixel_values"][:count])
        said = self.worded(logits[:count], batch["labels"][:count], sure=False)
        for picture, (true, made) in zip(pixels, said, strict=True):
            words = f"made: {made}\ntrue: {true}"
            self.shown.append((self.shown_as(picture), words, GOOD if made == true else BAD))

    def shown_as(self, pixels: Tensor) -> Image.Image:
        """What the sheet shows of one input, uint8."""
        return to_picture(pixels)
