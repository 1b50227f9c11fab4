"""Image regression: a picture in, a number out; how many things are in it."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch import Tensor

from tasks.training.pictures import sheet, to_picture
from tasks.training.value_task import ValueTask

SHOWN = 16
"""Pictures of the sheet."""


class ImageRegression(ValueTask):
    """Squared error; correlations over a split; a sheet of pictures with both numbers.

    A batch has ``pixel_values (batch, channels, height, width)`` and ``labels (batch)``, float32.
    """

    fields = ("pixel_values", "labels")
    inputs = "pictures"

    def logits(self, batch: dict[str, Any]) -> Tensor:
        return self.model(batch["pixel_values"]).float()

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.shown: list[tuple[Image.Image, str]] = []

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        made, left = self.evaluate(batch, "val"), SHOWN - len(self.shown)
        if left <= 0:
            return
        pixels = self.restored(batch["pixel_values"][:left])
        rows = zip(pixels, made[:left], batch["labels"][:left].tolist(), strict=True)
        self.shown += [(to_picture(one), f"made: {m:.2f}\ntrue: {t:g}") for one, m, t in rows]

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if self.shown:
            pictures, words = zip(*self.shown, strict=True)
            self.pictures = {"predictions": sheet(pictures, words)}
