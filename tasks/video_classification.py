"""Video classification: a clip in, a class out."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from tasks.image_classification import ImageClassification
from tasks.training.pictures import to_picture

FRAMES = 4
"""Of a clip on the sheet, at most."""


class VideoClassification(ImageClassification):
    """As with pictures: cross-entropy; top-1 and top-5 accuracy; a sheet of clips, some frames of each
    side by side, with predictions and truth.

    A batch has ``pixel_values (batch, frames, channels, height, width)`` and ``labels (batch)``, int64.
    """

    def shown_as(self, pixels: Tensor) -> Image.Image:
        """Of ``(frames, 3, height, width)`` uint8."""
        taken = torch.linspace(0, len(pixels) - 1, min(FRAMES, len(pixels))).round().long()
        return to_picture(torch.cat(list(pixels[taken]), dim=-1))
