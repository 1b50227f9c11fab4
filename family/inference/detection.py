"""Pictures to the objects in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from family.heads.detection import postprocess
from family.inference.batches import PICTURES, Picture, picture_batches

SURE = 0.3
"""The least score of an object, where no validation has found a better one."""


@torch.no_grad()
def detect(
    model: Any, pictures: Sequence[Picture], threshold: float = SURE, batch_size: int = PICTURES
) -> list[list[dict[str, Any]]]:
    """The objects of each picture, best first: ``label``, ``category_id`` as in the data that the model
    was trained on, ``score``, and ``box``: left, top, right, bottom in pixels of the picture.

    Args:
        threshold: the least score.
    """
    classification = getattr(model, "classification", "softmax")
    found = []
    for batch, pixels in picture_batches(model, pictures, batch_size):
        sizes = [(picture.height, picture.width) for picture in batch]
        for one in postprocess(model(pixels), sizes, classification):
            sure = one["scores"] >= threshold
            values = (one[name][sure].tolist() for name in ("labels", "scores", "boxes"))
            rows = zip(*values, strict=True)
            found.append([described(model, kind, score, box=box) for kind, score, box in rows])
    return found


def described(model: Any, kind: int, score: float, **place: Any) -> dict[str, Any]:
    """One object by the names of the data, and where it is."""
    labels, ids = getattr(model, "labels", None), getattr(model, "category_ids", None)
    return {
        "label": labels[kind] if labels else str(kind),
        "category_id": ids[kind] if ids else kind,
        "score": score,
        **place,
    }
