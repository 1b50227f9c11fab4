"""COCO's table of twelve for boxes or masks, through faster-coco-eval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask

from tasks.errors import UserError

NAMES = (
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large",
    "mar_1", "mar_10", "mar_100", "mar_small", "mar_medium", "mar_large",
)  # fmt: skip
"""In COCO's order; precision and recall averaged over IoU 0.50 to 0.95 where nothing else is said."""

THRESHOLDS, RECALLS = np.linspace(0.5, 0.95, 10), np.linspace(0, 1, 101)
"""IoUs at which a box counts as found, and recalls at which precision is read."""
MOST = 100
"""Boxes of a picture and class that count."""


class Judged(NamedTuple):
    """A picture that was evaluated: its ``target`` (``image_id``, ``size``, ``labels``, ``boxes``), and
    what was ``found`` in it, as COCO writes results."""

    target: dict[str, Any]
    found: list[dict[str, Any]]


def once(judged: Sequence[Judged]) -> list[Judged]:
    """Each picture once: samplers that share a split among processes fill up with some again.

    Raises:
        UserError: two pictures of one ``image_id``.
    """
    first: dict[int, Judged] = {}
    for one in judged:
        number = int(one.target["image_id"])
        same = first.setdefault(number, one).target
        for name in ("labels", "boxes"):
            if not torch.equal(same[name], one.target[name]):
                raise UserError(
                    f"two pictures have image_id={number}, but not the same {name}: each needs an "
                    "id of its own, by which its boxes are found."
                )
    return list(first.values())


def of_pictures(truth: dict[str, Any], seen: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The part of a COCO data set that is of the pictures seen: what was never looked at is not
    missed.

    Args:
        seen: their targets, with ``image_id``.
    """
    ids = {int(target["image_id"]) for target in seen}
    images = [image for image in truth["images"] if image["id"] in ids]
    annotations = [one for one in truth["annotations"] if one["image_id"] in ids]
    return {**truth, "images": images, "annotations": annotations}


def coco_evaluation(
    truth: dict[str, Any], found: list[dict[str, Any]], kind: str = "bbox"
) -> COCOeval_faster:
    """COCO's evaluation of boxes, or of masks ("segm"), carried out; see :func:`coco_table`."""
    reference = COCO(truth)
    evaluation = COCOeval_faster(reference, reference.loadRes(found), iouType=kind)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def coco_classes(
    truth: dict[str, Any], found: list[dict[str, Any]], kind: str = "bbox"
) -> list[dict[str, Any]]:
    """Of each class the average precision (over IoU 0.50 to 0.95, at 0.50 and at 0.75), the average
    recall, and how many objects there are; empty where there is none."""
    evaluation = coco_evaluation(truth, found, kind)
    # Of all sizes, and 100 boxes: (IoUs, recalls, classes), (IoUs, classes).
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    recall = evaluation.eval["recall"][:, :, 0, -1]
    count = Counter(one["category_id"] for one in truth["annotations"] if not one["iscrowd"])
    names = {one["id"]: one["name"] for one in truth["categories"]}
    rows = []
    for i, number in enumerate(evaluation.params.catIds):
        values = {
            "ap": precision[:, :, i],
            "ap_50": precision[0, :, i],
            "ap_75": precision[5, :, i],
            "recall": recall[:, i],
        }
        means = {
            name: round(float(v.mean()), 6) if count[number] else "" for name, v in values.items()
        }
        rows.append({"class": names[number], **means, "objects": count[number]})
    return rows


def coco_table(
    truth: dict[str, Any], found: list[dict[str, Any]], kind: str = "bbox"
) -> dict[str, float]:
    """The twelve numbers by name; those of a size that no object has are left out.

    Args:
        truth: a COCO data set: ``images``, ``categories``, ``annotations``.
        found: COCO results: ``image_id``, ``category_id``, ``bbox`` as x, y, w, h in pixels, ``score``; of
            masks ``segmentation``, run lengths, in its place.
        kind: "bbox" or "segm".
    """
    evaluation = coco_evaluation(truth, found, kind)
    evaluation.summarize()
    table = zip(NAMES, evaluation.stats[: len(NAMES)], strict=True)
    # COCO writes -1 where there is nothing to find.
    return {name: float(value) for name, value in table if value >= 0}


def matches(true: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[list[Any]]:
    """How one picture's boxes are matched, as COCO does: in the order of their scores, to the
    best object of their class that is still free; else a crowd's box may excuse them.

    Args:
        true: the picture's annotations: ``category_id``, ``bbox``, ``iscrowd``.
        found: its results, as of :func:`coco_table`; of each class the first 100 count.

    Returns:
        Of each box category, score, and as bits, the lowest at IoU 0.5: matched, excused.
    """
    ranks: dict[int, int] = {}
    rows, boxes = [], []
    for box in sorted(found, key=lambda box: -box["score"]):
        rank = ranks[box["category_id"]] = ranks.get(box["category_id"], 0) + 1
        boxes += [box] if rank <= MOST else []
    crowd = np.array([False, *(bool(one["iscrowd"]) for one in true)])
    iou = np.full((len(boxes), len(crowd)), -1.0)  # the first column is nothing
    if boxes and true:
        sides = [[one["bbox"] for one in side] for side in (boxes, true)]
        iou[:, 1:] = mask.iou(*sides, crowd[1:].astype(int).tolist())
        kinds = [np.array([one["category_id"] for one in side]) for side in (boxes, true)]
        iou[:, 1:][kinds[0][:, None] != kinds[1]] = -1
    free = np.tile(~crowd, (len(THRESHOLDS), 1))
    for box, overlap in zip(boxes, iou, strict=True):
        left = np.where(free, overlap, -1.0)
        best = len(crowd) - 1 - left[:, ::-1].argmax(1)  # of equals the last
        hit = left.max(1) >= THRESHOLDS
        free[hit, best[hit]] = False
        excused = ~hit & (overlap[crowd].max(initial=-1.0) >= THRESHOLDS)
        score = float(str(np.float32(box["score"])))  # as short as another number allows
        rows.append([box["category_id"], score, as_bits(hit), as_bits(excused)])
    return rows


def best_threshold(rows: Sequence[Sequence[Any]], objects: int) -> float | None:
    """The least score at which boxes are shown best: where F1 at IoU 0.5 over all classes is greatest.

    Args:
        rows: of :func:`matches`, of all pictures; excused boxes count for nothing.
        objects: how many there are to be found, crowds apart.

    Returns:
        None where no box is right.
    """
    judged = sorted(((row[1], row[2] & 1) for row in rows if not row[3] & 1), reverse=True)
    best, threshold, right = 0.0, None, 0
    for i, (score, hit) in enumerate(judged):
        right += hit
        last = i + 1 == len(judged) or judged[i + 1][0] < score  # of equals all are shown
        found = 2 * right / (i + 1 + objects)
        if last and found > best:
            best, threshold = found, score
    return threshold


def as_bits(flags: np.ndarray) -> int:
    """The first flag is the lowest bit."""
    return int((flags << np.arange(len(flags))).sum())


def coco_truth(targets: list[dict[str, Any]]) -> dict[str, Any]:
    """A COCO data set of the targets of pictures, none of them a crowd.

    Args:
        targets: ``image_id``, ``size`` (height, width) in pixels, ``labels (n)``, and ``boxes (n, 4)`` as
            cx, cy, w, h in 0..1; a class is its own category.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for target in targets:
        height, width = map(int, target["size"])
        image_id = int(target["image_id"])
        images.append({"id": image_id, "height": height, "width": width})
        for label, box in zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True):
            across, down = box[2] * width, box[3] * height
            corner = [box[0] * width - across / 2, box[1] * height - down / 2]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label,
                    "bbox": [*corner, across, down],
                    "area": across * down,
                    "iscrowd": 0,
                }
            )
    kinds = sorted({one["category_id"] for one in annotations})
    categories = [{"id": kind, "name": str(kind)} for kind in kinds]
    return {"images": images, "annotations": annotations, "categories": categories}
