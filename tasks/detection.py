"""Detection: a picture in, a set of boxes with classes out."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from family.heads.detection import postprocess
from family.inference.detection import SURE
from family.losses.boxes import to_corners
from family.losses.set_matching import SetLoss
from tasks.runs.gathering import gather
from tasks.training.alarms import PICTURES
from tasks.training.building import own_losses
from tasks.training.by_class import WORST
from tasks.training.coco_metrics import (
    Judged,
    best_threshold,
    coco_classes,
    coco_table,
    coco_truth,
    matches,
    of_pictures,
    once,
)
from tasks.training.counting import Count
from tasks.training.pictures import draw_boxes, enlarged, sheet, to_picture
from tasks.training.task import Task

log = logging.getLogger(__name__)
SHOWN = 4
"""Pictures of the sheet."""
TRUTH = ("image_id", "size", "labels", "boxes")
"""What is kept of a target to judge by."""


class Detection(Task):
    """The set loss of DETR, or the model's own, each term logged; COCO's table of twelve; boxes drawn.

    A batch has ``pixel_values (batch, 3, height, width)``, ``pixel_mask (batch, height, width)``, True =
    picture, where pictures are padded, and ``targets``, for each picture a dictionary: ``labels (n)``,
    ``boxes (n, 4)`` as cx, cy, w, h in 0..1, and for evaluation ``size``, (height, width) in pixels of the
    original, and ``image_id``, a whole number.

    Args:
        model: the model, or what builds it from the number of classes.
        class_weight, box_weight, giou_weight, no_object_weight: of
            :class:`~family.losses.set_matching.SetLoss`; its ``classification`` is the model's. A
            model with a method ``losses(pixel_values, pixel_mask, targets)``, of terms that add up,
            learns from that instead, and has no loss in evaluation.
        options: of :class:`~tasks.training.task.Task`.
    """

    monitor = ("val/map", "max")
    fields = ("pixel_values", "targets", "pixel_mask")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        class_weight: float | None = None,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        no_object_weight: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.weights = class_weight, box_weight, giou_weight, no_object_weight
        self.judged: list[Judged] = []
        """The pictures of this evaluation: the truth is theirs alone, however few of a split they are."""

        self.threshold: float | None = None
        """The least score of boxes that are shown: what the last validation found best, see
        :func:`~tasks.training.coco_metrics.best_threshold`; checkpoints carry it."""
        self.tables: dict[str, list[dict[str, Any]]] = {}
        """What a test found, by class, and the worst pictures."""
        self.first: tuple[dict[str, Any], list[dict[str, Tensor]]] | None = None
        """The batch of the sheet, and its boxes."""
        self.boxes_apart: tuple[float, float] | None = None
        """What :class:`~tasks.training.alarms.Alarms` reads: how far the surest boxes of the pictures of a
        validation, and the first true ones, are from each other."""

    def assets(self) -> dict[str, Any]:
        """With the ``threshold`` of boxes that are shown."""
        known = {} if self.threshold is None else {"threshold": self.threshold}
        return {**super().assets(), **known}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.threshold = checkpoint.get("family", {}).get("assets", {}).get("threshold")

    @property
    def criterion(self) -> SetLoss:
        return SetLoss(getattr(self.model, "classification", "softmax"), *self.weights)

    def inputs(self, batch: dict[str, Any]) -> list[Any]:
        """Pictures and their mask."""
        mask = batch.get("pixel_mask")
        # Without padding there is nothing to mask, and unmasked attention is faster.
        return [batch["pixel_values"], None if mask is None or bool(mask.all()) else mask]

    def outputs(self, batch: dict[str, Any], targets: Any = None) -> dict[str, Any]:
        """What the model finds; models that learn from noised targets get them in training."""
        inputs = self.inputs(batch)
        if targets is not None and getattr(self.model, "denoising", None) is not None:
            inputs.append(targets)
        return self.model(*inputs)

    @property
    def own_loss(self) -> Callable[..., dict[str, Tensor]] | None:
        """That of a model which brings one."""
        return own_losses(self.model)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        targets = batch["targets"]
        if self.own_loss is not None:
            shown = self.own_loss(*self.inputs(batch), targets)
            return {"loss": torch.stack(list(shown.values())).sum(), **shown}
        terms = self.criterion(self.outputs(batch, targets), targets, batch.get("whole"))
        shown = {name: terms[name] for name in ("class", "boxes", "giou")}
        return {"loss": self.criterion.total(terms), **shown}

    def term_counts(self, batch: dict[str, Any]) -> dict[str, Count]:
        if self.own_loss is not None:
            return {}  # means over pictures
        targets = batch["targets"]
        return {
            "pictures": len(targets),
            "targets": sum(len(target["labels"]) for target in targets),
        }

    def _evaluate(
        self, batch: dict[str, Any], split: str
    ) -> tuple[list[dict[str, Tensor]], list[list[dict[str, Any]]]]:
        """The boxes of each picture, and the same as COCO writes them."""
        outputs, targets = self.outputs(batch), batch["targets"]
        if self.own_loss is None:
            loss = self.criterion.total(self.criterion(outputs, targets))
            self.log_mean({f"{split}/loss": loss}, len(targets), prog_bar=False)
        made = self.boxes(outputs, targets)
        ids = self.category_ids(outputs)
        pairs = zip(made, targets, strict=True)
        rows = [coco_results(boxes, target["image_id"], ids) for boxes, target in pairs]
        for target, found in zip(targets, rows, strict=True):
            self.judged.append(Judged({name: plain(target[name]) for name in TRUTH}, found))
        return made, rows

    def boxes(self, outputs: dict[str, Any], targets: Any) -> list[dict[str, Tensor]]:
        """``scores``, ``labels``, ``boxes`` of each picture, in pixels of the original."""
        sizes = [target["size"] for target in targets]
        return postprocess(outputs, sizes, self.criterion.classification)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        made, _ = self._evaluate(batch, "val")
        if index == 0:
            self.first = batch, made

    def category_ids(self, outputs: dict[str, Any]) -> list[int]:
        """Of each class the id that the data, or else its place, give it."""
        count = outputs["logits"].shape[-1]
        return self.assets().get("category_ids") or list(range(count))

    def on_validation_epoch_start(self) -> None:
        self.judged = []  # one that was broken off leaves some

    def on_test_epoch_start(self) -> None:
        self.judged = []
        self.objects: dict[int, list[dict[str, Any]]] = {}
        if hasattr(self.data, "ground_truth"):
            self.truth = self.data.ground_truth("test")
            for annotation in self.truth["annotations"]:
                self.objects.setdefault(annotation["image_id"], []).append(annotation)

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By picture: its id, the categories of its objects, and its boxes, matched to them."""
        _, found = self._evaluate(batch, "test")
        if not hasattr(self.data, "ground_truth"):
            return {}
        lines = [target["image_id"] for target in batch["targets"]]
        true = [self.objects.get(line, []) for line in lines]
        return {
            "line": lines,
            "objects": [[one["category_id"] for one in a if not one["iscrowd"]] for a in true],
            "found": [matches(*both) for both in zip(true, found, strict=True)],
        }

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def _score(self, split: str) -> None:
        judged, self.judged = once(gather(self.judged)), []
        first, self.first = self.first, None
        if self.trainer.sanity_checking:
            return
        seen = [one.target for one in judged]
        if split == "test" and self.objects:
            truth = of_pictures(self.truth, seen)
        elif hasattr(self.data, "ground_truth"):
            truth = of_pictures(self.data.ground_truth(split), seen)
        else:
            truth = coco_truth(seen)
        found = list(chain.from_iterable(one.found for one in judged))
        if truth["annotations"]:
            table = coco_table(truth, found)
        else:  # by a name that the best checkpoint is chosen by
            log.warning("%s: none of %d pictures has an object: there is no mAP.", split, len(seen))
            table = {"map": math.nan}
        for name, value in table.items():
            self.log(f"{split}/{name}", value, prog_bar=name == "map")
        rows = matched(truth, judged)
        if split == "test" and truth["annotations"]:
            least = SURE if self.threshold is None else self.threshold
            worst = sorted(pictures_of(truth, judged, rows, least), key=errors, reverse=True)
            self.tables = {"classes": coco_classes(truth, found), "worst": worst[:WORST]}
        if split == "val":
            self.boxes_apart = boxes_apart(judged)
            objects = sum(not one["iscrowd"] for one in truth["annotations"])
            best = best_threshold([row for some in rows for row in some], objects)
            self.threshold = self.threshold if best is None else best
            if first is not None:
                self._show(*first)

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        outputs = self.outputs(batch)
        made, ids = self.boxes(outputs, batch["targets"]), self.category_ids(outputs)
        found = []
        for boxes, target in zip(made, batch["targets"], strict=True):
            name = {"file_name": target["file"]} if "file" in target else {}
            found += [row | name for row in coco_results(boxes, target["image_id"], ids)]
        return found

    def _show(self, batch: dict[str, Any], made: list[dict[str, Tensor]]) -> None:
        kinds = [
            int(one["labels"].max()) for one in [*batch["targets"], *made] if len(one["labels"])
        ]
        names = self.label_names(max(kinds, default=0) + 1)
        least = SURE if self.threshold is None else self.threshold
        pictures, captions = [], []
        restored = self.restored(batch["pixel_values"][:SHOWN])
        masks = batch.get("pixel_mask", torch.ones_like(batch["pixel_values"][:, 0]))
        for i, pixels in enumerate(restored):
            target, found, mask = batch["targets"][i], made[i], masks[i]
            height, width = int(mask[:, 0].sum()), int(mask[0].sum())
            picture, factor = enlarged(to_picture(pixels[:, :height, :width]))
            true = to_corners(target["boxes"].cpu()) * torch.tensor([*picture.size] * 2)
            sure = found["scores"] >= least
            boxes = found["boxes"][sure].cpu() * (width * factor / target["size"][1])
            scores, labels = found["scores"][sure].tolist(), found["labels"][sure].tolist()
            pictures.append(draw_boxes(picture, true, target["labels"].tolist(), names))
            pictures.append(draw_boxes(picture, boxes, labels, names, scores))
            captions += ["true", f"made ({len(labels)} of score {least:.2g} and more)"]
        self.pictures = {"boxes": sheet(pictures, captions, columns=2, side=400)}


def matched(truth: dict[str, Any], judged: list[Judged]) -> list[list[list[Any]]]:
    """Of each picture its boxes, matched to the objects of a COCO data set, see :func:`matches`."""
    objects: dict[int, list[dict[str, Any]]] = {}
    for one in truth["annotations"]:
        objects.setdefault(one["image_id"], []).append(one)
    return [matches(objects.get(int(one.target["image_id"]), []), one.found) for one in judged]


def pictures_of(
    truth: dict[str, Any], judged: list[Judged], rows: list[list[list[Any]]], least: float
) -> list[dict[str, Any]]:
    """Of each picture at IoU 0.5 the objects that were missed, and the boxes of a score of ``least`` and
    more that are wrong and right."""
    count = Counter(one["image_id"] for one in truth["annotations"] if not one["iscrowd"])
    names = {image["id"]: image.get("file_name", "") for image in truth["images"]}
    found = []
    for one, some in zip(judged, rows, strict=True):
        number = int(one.target["image_id"])
        shown = [row for row in some if row[1] >= least and not row[3] & 1]
        right = sum(row[2] & 1 for row in shown)
        file = {"image_id": number, "file": names.get(number, "")}
        wrong = len(shown) - right
        found.append({**file, "missed": count[number] - right, "wrong": wrong, "right": right})
    return found


def errors(picture: dict[str, Any]) -> int:
    return picture["missed"] + picture["wrong"]


def boxes_apart(judged: list[Judged]) -> tuple[float, float] | None:
    """The largest deviation over pictures of a side of the surest box, and of that of the first true one, in
    shares of the pictures; None of fewer than :data:`~tasks.training.alarms.PICTURES`."""
    found = [one for one in judged if one.found and len(one.target["boxes"])]
    if len(found) < PICTURES:
        return None
    surest = []
    for one in found:
        box = max(one.found, key=lambda row: row["score"])["bbox"]
        height, width = (float(side) for side in one.target["size"])
        surest.append([box[0] / width, box[1] / height, box[2] / width, box[3] / height])
    true = torch.stack([one.target["boxes"][0].float() for one in found])
    return float(torch.tensor(surest).std(0).max()), float(true.std(0).max())


def plain(value: Any) -> Any:
    """A part of a target, off the device: all processes send each other theirs."""
    return value.detach().cpu() if isinstance(value, Tensor) else value


def coco_results(
    made: dict[str, Tensor], image_id: int, category_ids: list[int]
) -> list[dict[str, Any]]:
    """One picture's boxes as COCO writes results, category ids as in the data."""
    boxes = made["boxes"].float().cpu()
    sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
    rows = zip(sides, made["labels"].tolist(), made["scores"].tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        for box, label, score in rows
    ]
