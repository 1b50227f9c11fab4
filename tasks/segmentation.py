"""Semantic segmentation: a picture in, the class of each of its pixels out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from family.losses.mask_matching import class_segments
from tasks.data.segmentation import IGNORE_MASK
from tasks.errors import UserError
from tasks.runs.gathering import gather
from tasks.training.building import own_losses
from tasks.training.by_class import WORST, class_table, confusion_table, unlike
from tasks.training.coco_masks import JudgedMasks, judge, mask_table
from tasks.training.counting import Count
from tasks.training.pictures import (
    class_map,
    legend,
    mask_picture,
    overlay,
    sheet,
    stack,
    to_picture,
)
from tasks.training.weighting import WeightedTask

SHOWN = 4
"""Pictures of the sheet."""


class Segmentation(WeightedTask):
    """Cross-entropy by pixel; mean IoU and pixel accuracy over the pixels that are not ignored.

    A model with a method ``losses(pixel_values, labels)``, whose ``loss`` is minimised, learns from that
    instead, a mean over pictures unless it takes ``whole`` (:data:`~family.losses.set_matching.Whole`); one with ``anneal(progress)`` hears before each step what share of the training is done.

    Logits are resized to each mask's own size before they are judged. The IoU of a class is taken
    over the whole set, and the mean over the classes that occur in the truth or in the predictions.

    A batch has ``pixel_values (batch, channels, height, width)`` and ``labels (batch, height, width)``,
    int64, 255 where a pixel counts for nothing; in evaluation also a list of masks of unequal sizes. Where
    it has ``segments`` too (:class:`~tasks.data.segmentation.SegmentationData` with ``instances``), a
    model with ``instances(pixel_values, threshold, sizes)`` learns from them, by its own ``losses``, and
    COCO's average precision over masks is told, ``val/mask_map``.
    """

    fields = ("pixel_values", "labels")
    ignored = IGNORE_MASK

    monitor = ("val/miou", "max")

    def __init__(self, model: Callable[[int], nn.Module] | None = None, **options: Any) -> None:
        super().__init__(model, **options)
        self.confusion: MulticlassConfusionMatrix | None = None
        self.tested: list[dict[str, Any]] = []
        """Of each picture of a test how well it was done."""
        self.tables: dict[str, list[dict[str, Any]]] = {}
        """What a test found, by class, and the worst pictures."""
        self.judged: list[JudgedMasks] = []
        """The instances of this evaluation."""

    def configure_model(self) -> None:
        super().configure_model()
        if getattr(self.data, "instances", False) and not hasattr(self.model, "instances"):
            raise UserError(
                f"data.instances=true needs a model that finds instances, and {type(self.model).__name__} "
                "gives the classes of pixels alone."
            )
        if self.num_classes and self.confusion is None:  # it counts over all processes
            self.confusion = confusion_matrix(self.num_classes)

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        super().on_train_batch_start(batch, index)
        steps = self.trainer.estimated_stepping_batches
        if hasattr(self.model, "anneal") and steps < math.inf:
            self.model.anneal(self.global_step / steps)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        losses = own_losses(self.model)
        if losses is not None:
            if self.label_smoothing or self.class_weights is not None:
                raise UserError(
                    f"model.label_smoothing and class_weights are of the cross-entropy by pixel, but "
                    f"{type(self.model).__name__} learns from losses of its own: leave them out."
                )
            whole = {"whole": batch["whole"]} if "whole" in batch else {}
            return losses(batch["pixel_values"], batch.get("segments", batch["labels"]), **whole)
        logits, labels = self.model(batch["pixel_values"]), batch["labels"]
        weights = self.loss_weights(logits)
        loss, count = pixel_loss(logits, labels, weights, self.label_smoothing)
        return {"loss": loss / (count + (count == 0))}  # a batch of void alone teaches nothing

    def count(self, batch: dict[str, Any]) -> Count:
        if own_losses(self.model) is not None:
            return len(batch["pixel_values"])  # no mean over pixels
        return super().count(batch)

    def term_counts(self, batch: dict[str, Any]) -> dict[str, Count]:
        losses = own_losses(self.model)
        if losses is None or "whole" not in inspect.signature(losses).parameters:
            return {}
        segments = batch.get("segments") or class_segments(batch["labels"], IGNORE_MASK)
        count = sum(len(one["labels"]) for one in segments)
        return {"pictures": len(segments), "targets": count}

    def _evaluate(self, batch: dict[str, Any], split: str) -> tuple[Tensor, list[Tensor]]:
        """The logits, and of each picture the pixels by true and made class."""
        logits, confusions = self.model(batch["pixel_values"]).float(), []
        if self.confusion is None:
            self.confusion = confusion_matrix(logits.shape[1]).to(logits.device)
        for i, labels in enumerate(batch["labels"]):
            whole = F.interpolate(logits[i : i + 1], labels.shape, mode="bilinear")
            loss, count = pixel_loss(whole, labels[None])
            confusions.append(self.confusion(whole.argmax(1), labels[None]))
            self.count_classes(confusions[-1].sum(0), confusions[-1].sum(1))
            # All void counts for nothing, but is said: other processes wait for it.
            mean = {f"{split}/loss": loss / count.clamp(min=1)}
            self.log_mean(mean, int(count), prog_bar=False)
        if "segments" in batch:
            sizes = [labels.shape for labels in batch["labels"]]
            found = self.model.instances(batch["pixel_values"], 0.0, sizes)
            names = batch.get("file") or [
                (self.global_rank, len(self.judged) + i) for i in range(len(sizes))
            ]
            rows = zip(names, found, batch["segments"], strict=True)
            self.judged += [judge(*row, self.assets().get("things")) for row in rows]
        return logits, confusions

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        logits, _ = self._evaluate(batch, "val")
        if index == 0:
            self._show(batch, logits)

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By picture: of each class the pixels that were right, made and true."""
        _, found = self._evaluate(batch, "test")
        for i, one in enumerate(found):
            name = {"file": batch["file"][i]} if "file" in batch else {"example": len(self.tested)}
            iou, accuracy = scores(one)
            mean = float(iou[~iou.isnan()].mean())
            if mean == mean:  # else no pixel counts
                known = {"miou": round(mean, 6), "pixel_accuracy": round(float(accuracy), 6)}
                self.tested.append({**name, **known})
        return {
            "pixels_both": [one.diagonal().tolist() for one in found],
            "pixels_made": [one.sum(0).tolist() for one in found],
            "pixels_true": [one.sum(1).tolist() for one in found],
        }

    def on_validation_epoch_start(self) -> None:
        self.judged = []  # one that was broken off leaves some

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_start(self) -> None:
        self.tested, self.judged = [], []

    def on_test_epoch_end(self) -> None:
        """Also as tables: pixels by true and made class, classes, and the worst pictures."""
        tested, self.tested = gather(self.tested), []
        if self.confusion is not None:
            counts = self.confusion.compute().cpu()
            names = self.label_names(len(counts))
            self.tables = {
                "confusion": confusion_table(counts, names),
                "classes": class_table(counts, names, iou=True),
                "worst": sorted(tested, key=lambda one: one["miou"])[:WORST],
            }
        self._score("test")

    def _score(self, split: str) -> None:
        if self.confusion is None:
            return
        iou, accuracy = scores(self.confusion.compute())
        self.confusion.reset()
        self.log(f"{split}/miou", iou[~iou.isnan()].mean(), prog_bar=True)
        self.log(f"{split}/pixel_accuracy", accuracy)
        names = self.label_names(len(iou))
        known = [(name, value) for name, value in zip(names, iou, strict=True) if value == value]
        self.log_dict({f"{split}/iou/{name}": value for name, value in known})
        judged, self.judged = gather(self.judged), []
        table, classes = mask_table(judged, names)
        self.log_dict({f"{split}/mask_{name}": value for name, value in table.items()})
        if split == "test" and classes:
            self.tables["instances"] = classes

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """Of each picture its ``file``, where known, the ``mask``, with the ids of the data, as large as
        the true one, and the share of each class."""
        logits, found = self.model(batch["pixel_values"]), []
        names = unlike(self.label_names(logits.shape[1]))
        outside = self.assets().get("category_ids") or list(range(len(names)))
        for i, one in enumerate(logits):
            size = batch["labels"][i].shape if "labels" in batch else one.shape[1:]
            ids = class_map(F.interpolate(one[None].float(), size, mode="bilinear")[0])
            share = torch.bincount(ids.flatten(), minlength=len(names)) / ids.numel()
            shares = {n: round(float(s), 4) for n, s in zip(names, share, strict=True)}
            name = {"file": batch["file"][i]} if "file" in batch else {}
            found.append({**name, "mask": mask_picture(ids.numpy(), outside), "shares": shares})
        return found

    def _show(self, batch: dict[str, Any], logits: Tensor) -> None:
        names = self.label_names(logits.shape[1])
        pictures, captions = [], []
        restored = self.restored(batch["pixel_values"][:SHOWN])
        masks = [labels.cpu() for labels in batch["labels"][:SHOWN]]
        for pixels, made, true in zip(restored, class_map(logits[:SHOWN]), masks, strict=True):
            picture = to_picture(pixels)
            pictures += [picture, overlay(picture, made, len(names))]
            pictures.append(overlay(picture, true, len(names)))
            captions += ["picture", "made", "true"]
        page = sheet(pictures, captions, columns=3, side=240)
        self.pictures = {"masks": stack([page, legend(names, page.width)])}


def confusion_matrix(classes: int) -> MulticlassConfusionMatrix:
    return MulticlassConfusionMatrix(classes, ignore_index=IGNORE_MASK)


def pixel_loss(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over the pixels that count, and their number, or that of their weights.

    Args:
        logits: ``(batch, classes, height, width)``; labels: ``(batch, height, width)``; weights: of the
            classes; label_smoothing: mass spread evenly over them.
    """
    how: dict[str, Any] = {"ignore_index": IGNORE_MASK, "label_smoothing": label_smoothing}
    loss = F.cross_entropy(logits.float(), labels, weights, reduction="sum", **how)
    there = labels != IGNORE_MASK
    if weights is None:
        return loss, there.sum()
    return loss, (weights[labels.where(there, 0)] * there).sum()


def scores(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """IoU of each class ``(classes)``, NaN where it never occurs, and the accuracy over all pixels.

    Args:
        confusion: ``(classes, classes)``, rows the truth and columns the predictions.
    """
    counts = confusion.double()
    both = counts.diagonal()
    return both / (counts.sum(0) + counts.sum(1) - both), both.sum() / counts.sum()
