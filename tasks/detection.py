"""Detection: a picture in, a set of boxes with classes out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from family.heads.detection import postprocess
from family.losses.boxes import to_corners
from family.losses.set_matching import SetLoss
from tasks.runs.gathering import gather
from tasks.training.coco_metrics import coco_table, matches
from tasks.training.pictures import draw_boxes, enlarged, sheet, to_picture
from tasks.training.task import Task

SHOWN = 4
"""Pictures of the sheet."""
SURE = 0.3
"""Boxes of at least this score are drawn."""


class Detection(Task):
    """The set loss of DETR, or the model's own, each term logged; COCO's table of twelve; boxes drawn.

    Args:
        model: what builds the model from the number of classes.
        class_weight, box_weight, giou_weight, no_object_weight: of
            :class:`~family.losses.set_matching.SetLoss`; its ``classification`` is the model's. A
            model with a method ``losses(pixel_values, pixel_mask, targets)``, of terms that add up,
            learns from that instead, and has no loss in evaluation.
        options: of :class:`~tasks.training.task.Task`.
    """

    monitor = ("val/map", "max")

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
        self.found: list[dict[str, Any]] = []

    def configure_model(self) -> None:
        super().configure_model()
        classification = getattr(self.model, "classification", "softmax")
        self.criterion = SetLoss(classification, *self.weights)

    def inputs(self, batch: dict[str, Any]) -> list[Any]:
        """Pictures and their mask."""
        mask = batch["pixel_mask"]
        # Without padding there is nothing to mask, and unmasked attention is faster.
        return [batch["pixel_values"], None if bool(mask.all()) else mask]

    def outputs(self, batch: dict[str, Any], targets: Any = None) -> dict[str, Any]:
        """What the model finds; models that learn from noised targets get them in training."""
        inputs = self.inputs(batch)
        if targets is not None and getattr(self.model, "denoising", None) is not None:
            inputs.append(targets)
        return self.model(*inputs)

    @property
    def own_loss(self) -> Callable[..., dict[str, Tensor]] | None:
        """That of a model which brings one."""
        losses = getattr(self.model, "losses", None)
        return losses if callable(losses) and not isinstance(losses, nn.Module) else None

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        targets = batch["targets"]
        if self.own_loss is not None:
            shown = self.own_loss(*self.inputs(batch), targets)
            loss = torch.stack(list(shown.values())).sum()
        else:
            terms = self.criterion(self.outputs(batch, targets), targets)
            loss = self.criterion.total(terms)
            shown = {name: terms[name] for name in ("class", "boxes", "giou")}
        self.log_training("loss", loss.detach(), prog_bar=True)
        for name, term in shown.items():
            self.log_training(name, term.detach())
        return loss

    def _evaluate(
        self, batch: dict[str, Any], split: str
    ) -> tuple[list[dict[str, Tensor]], list[list[dict[str, Any]]]]:
        """The boxes of each picture, and the same as COCO writes them."""
        outputs, targets = self.outputs(batch), batch["targets"]
        if self.own_loss is None:
            loss = self.criterion.total(self.criterion(outputs, targets))
            self.log(f"{split}/loss", loss, batch_size=len(targets), sync_dist=True)
        made = self.boxes(outputs, targets)
        ids = self.data.assets()["category_ids"]
        pairs = zip(made, targets, strict=True)
        rows = [coco_results(boxes, target["image_id"], ids) for boxes, target in pairs]
        self.found += chain.from_iterable(rows)
        return made, rows

    def boxes(self, outputs: dict[str, Any], targets: Any) -> list[dict[str, Tensor]]:
        """``scores``, ``labels``, ``boxes`` of each picture, in pixels of the original."""
        sizes = [target["size"] for target in targets]
        return postprocess(outputs, sizes, self.criterion.classification)

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        made, _ = self._evaluate(batch, "val")
        if index == 0:
            self._show(batch, made)

    def on_test_epoch_start(self) -> None:
        self.truth = self.data.ground_truth("test")
        self.objects: dict[int, list[dict[str, Any]]] = {}
        for annotation in self.truth["annotations"]:
            self.objects.setdefault(annotation["image_id"], []).append(annotation)

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By picture: its id, the categories of its objects, and its boxes, matched to them."""
        _, found = self._evaluate(batch, "test")
        lines = [target["image_id"] for target in batch["targets"]]
        true = [self.objects.get(line, []) for line in lines]
        return {
            "line": lines,
            "objects": [[one["category_id"] for one in a if not one["iscrowd"]] for a in true],
            "found": [matches(*both) for both in zip(true, found, strict=True)],
        }

    def on_validation_epoch_end(self) -> None:
        self._score("val", self.data.ground_truth("val"))

    def on_test_epoch_end(self) -> None:
        self._score("test", self.truth)

    def _score(self, split: str, truth: dict[str, Any]) -> None:
        found, self.found = gather(self.found), []
        if self.trainer.sanity_checking:
            return
        table = coco_table(truth, found)
        for name, value in table.items():
            self.log(f"{split}/{name}", value, prog_bar=name == "map")

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        made = self.boxes(self.outputs(batch), batch["targets"])
        ids = self.data.assets()["category_ids"]
        pairs = zip(made, batch["targets"], strict=True)
        return [row for boxes, t in pairs for row in coco_results(boxes, t["image_id"], ids)]

    def _show(self, batch: dict[str, Any], made: list[dict[str, Tensor]]) -> None:
        names = self.data.assets()["labels"]
        pictures, captions = [], []
        restored = self.preprocess.restore(batch["pixel_values"][:SHOWN])
        for i, pixels in enumerate(restored):
            target, found, mask = batch["targets"][i], made[i], batch["pixel_mask"][i]
            height, width = int(mask[:, 0].sum()), int(mask[0].sum())
            picture, factor = enlarged(to_picture(pixels[:, :height, :width]))
            true = to_corners(target["boxes"].cpu()) * torch.tensor([*picture.size] * 2)
            sure = found["scores"] >= SURE
            boxes = found["boxes"][sure].cpu() * (width * factor / target["size"][1])
            scores, labels = found["scores"][sure].tolist(), found["labels"][sure].tolist()
            pictures.append(draw_boxes(picture, true, target["labels"].tolist(), names))
            pictures.append(draw_boxes(picture, boxes, labels, names, scores))
            captions += ["true", f"made ({len(labels)} of score {SURE} and more)"]
        self.pictures = {"boxes": sheet(pictures, captions, columns=2, side=400)}


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
