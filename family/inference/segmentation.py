"""Pictures to the class of each of their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from family.inference.batches import PICTURES, Picture, picture_batches


@torch.no_grad()
def segment(model: Any, pictures: Sequence[Picture], batch_size: int = PICTURES) -> list[Tensor]:
    """The class of each pixel of each picture, ``(height, width)`` as the picture has them; uint8, or
    int32 where there are more than 256 classes."""
    found = []
    for batch, pixels in picture_batches(model, pictures, batch_size):
        for picture, logits in zip(batch, model(pixels), strict=True):
            size = (picture.height, picture.width)
            whole = F.interpolate(logits[None].float(), size, mode="bilinear")
            kind = torch.uint8 if whole.shape[1] <= 256 else torch.int32
            found.append(whole[0].argmax(0).to(kind).cpu())
    return found
