"""Pictures to the class of each of their pixels, or to the instances in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from family.inference.batches import PICTURES, Picture, picture_batches
from family.inference.detection import described


@torch.no_grad()
def segment(
    model: Any,
    pictures: Sequence[Picture],
    batch_size: int = PICTURES,
    *,
    instances: bool = False,
    threshold: float = 0.5,
    things: Sequence[int] | None = None,
) -> list[Any]:
    """The class of each pixel of each picture, ``(height, width)`` as the picture has them; uint8, or
    int32 where there are more than 256 classes.

    Args:
        instances: the instances of each picture instead, best first: ``label``, ``category_id`` as in the
            data, ``score``, and ``mask (height, width)``, bool.
        threshold: the least score of an instance.
        things: the classes of which there are instances; None is all.

    Raises:
        ValueError: instances of a model that does not find any.
    """
    if instances:
        return find_instances(model, pictures, batch_size, threshold, things)
    found = []
    for batch, pixels in picture_batches(model, pictures, batch_size):
        for picture, logits in zip(batch, model(pixels), strict=True):
            size = (picture.height, picture.width)
            whole = F.interpolate(logits[None].float(), size, mode="bilinear")
            kind = torch.uint8 if whole.shape[1] <= 256 else torch.int32
            found.append(whole[0].argmax(0).to(kind).cpu())
    return found


def find_instances(
    model: Any,
    pictures: Sequence[Picture],
    batch_size: int,
    threshold: float,
    things: Sequence[int] | None,
) -> list[list[dict[str, Any]]]:
    """See :func:`segment`."""
    if not hasattr(model, "instances"):
        raise ValueError(
            f"a {type(model).__name__} gives the classes of pixels alone: it finds no instances."
        )
    found = []
    for batch, pixels in picture_batches(model, pictures, batch_size):
        sizes = [(picture.height, picture.width) for picture in batch]
        for one in model.instances(pixels, threshold, sizes):
            rows = zip(one["labels"].tolist(), one["scores"].tolist(), one["masks"], strict=True)
            found.append(
                [
                    described(model, kind, score, mask=mask.cpu())
                    for kind, score, mask in rows
                    if things is None or kind in things
                ]
            )
    return found
