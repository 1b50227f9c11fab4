"""Instances against the true ones, as COCO judges masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval.core import mask
from torch import Tensor

from tasks.training.coco_metrics import coco_classes, coco_table

SHOWN = ("map", "map_50", "map_75")


class JudgedMasks(NamedTuple):
    """A picture that was evaluated, by its ``name``: ``size`` (height, width), and the ``true`` and ``found``
    instances as COCO writes them, without numbers."""

    name: Any
    size: tuple[int, int]
    true: list[dict[str, Any]]
    found: list[dict[str, Any]]


def run_lengths(masks: Tensor) -> list[dict[str, Any]]:
    """Masks ``(n, height, width)`` as COCO writes them compressed: ``size`` and ``counts``."""
    if not len(masks):
        return []
    last = np.asfortranarray(masks.permute(1, 2, 0).cpu().numpy().astype(np.uint8))
    return [{"size": [*one["size"]], "counts": one["counts"].decode()} for one in mask.encode(last)]


def judge(
    name: Any, found: Mapping[str, Tensor], true: Mapping[str, Tensor], things: Sequence[int] | None
) -> JudgedMasks:
    """Of one picture, to be counted by :func:`mask_table`.

    Args:
        found: ``labels (n)``, ``scores (n)``, ``masks (n, height, width)``.
        true: ``labels (n)``, ``masks (n, height, width)``.
        things: the classes of which each instance counts; None is all.
    """
    rows = instances(found, things)
    scores = found["scores"].tolist()
    for row, number in zip(rows, kept(found["labels"], things), strict=True):
        row["score"] = scores[number]
    areas = true["masks"].sum((1, 2)).tolist()
    truth = instances(true, things)
    for row, number in zip(truth, kept(true["labels"], things), strict=True):
        row |= {"area": areas[number], "bbox": mask.toBbox(row["segmentation"]).tolist()}
    height, width = true["masks"].shape[1:]
    return JudgedMasks(name, (height, width), truth, rows)


def kept(labels: Tensor, things: Sequence[int] | None) -> list[int]:
    """The numbers of those that are things."""
    return [i for i, k in enumerate(labels.tolist()) if things is None or k in things]


def instances(given: Mapping[str, Tensor], things: Sequence[int] | None) -> list[dict[str, Any]]:
    """Those of things, as COCO writes them."""
    numbers, labels = kept(given["labels"], things), given["labels"].tolist()
    lengths = run_lengths(given["masks"][numbers])
    return [
        {"category_id": labels[i], "segmentation": one, "iscrowd": 0}
        for i, one in zip(numbers, lengths, strict=True)
    ]


def mask_table(
    judged: Sequence[JudgedMasks], names: Sequence[str]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """COCO's average precision over masks (over IoU 0.50 to 0.95, at 0.50 and at 0.75), and what
    :func:`~tasks.training.coco_metrics.coco_classes` says; both empty where there is no instance. Each
    picture counts once.

    Args:
        names: of the classes.
    """
    first = {one.name: one for one in reversed(judged)}
    images, true, found = [], list[dict[str, Any]](), list[dict[str, Any]]()
    for number, one in enumerate(first.values(), 1):
        images.append({"id": number, "height": one.size[0], "width": one.size[1]})
        for row in one.true:
            true.append({**row, "id": len(true) + 1, "image_id": number})
        found += [{**row, "image_id": number} for row in one.found]
    if not true:
        return {}, []
    kinds = sorted({row["category_id"] for row in true})
    categories = [{"id": kind, "name": names[kind]} for kind in kinds]
    truth = {"images": images, "annotations": true, "categories": categories}
    found = [row for row in found if row["category_id"] in kinds]
    table = coco_table(truth, [dict(row) for row in found], "segm")
    classes = coco_classes(truth, found, "segm")
    return {name: table[name] for name in SHOWN if name in table}, classes
