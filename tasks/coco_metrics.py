"""COCO's table of twelve for boxes, through faster-coco-eval."""

from __future__ import annotations

from typing import Any

from faster_coco_eval import COCO, COCOeval_faster

NAMES = (
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large",
    "mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large",
)  # fmt: skip
"""In COCO's order; precision and recall averaged over IoU 0.50 to 0.95 where nothing else is said."""


def coco_table(truth: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, float]:
    """The twelve numbers by name; those of a size that no object has are left out.

    Args:
        truth: a COCO data set: ``images``, ``categories``, ``annotations``.
        found: COCO results: ``image_id``, ``category_id``, ``bbox`` as x, y, w, h in pixels, ``score``.
    """
    reference = COCO(truth)
    evaluation = COCOeval_faster(reference, reference.loadRes(found), iouType="bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    table = zip(NAMES, evaluation.stats[: len(NAMES)], strict=True)
    # COCO writes -1 where there is nothing to find.
    return {name: float(value) for name, value in table if value >= 0}
