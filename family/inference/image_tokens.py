"""Pictures to tokens, and what a decoder makes of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torchvision.transforms.v2.functional import to_pil_image

from family.inference.batches import PICTURES, Picture, picture_batches


@torch.no_grad()
def reconstruct_pictures(
    model: Any, pictures: Sequence[Picture], batch_size: int = PICTURES
) -> list[dict[str, Any]]:
    """Of each picture its ``ids``, row by row, and the ``picture`` (one of PIL's) that is made of them, of
    the model's size."""
    found = []
    for _, pixels in picture_batches(model, pictures, batch_size):
        made = model(pixels)
        restored = model.preprocess.restore(made.float()).cpu()
        for ids, one in zip(model.tokenize(pixels).tolist(), restored, strict=True):
            found.append({"ids": ids, "picture": to_pil_image(one)})
    return found
