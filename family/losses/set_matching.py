"""A set of predictions against a set of objects: matching, then the loss of each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import sigmoid_focal_loss

from family.losses.boxes import generalized_iou, to_corners

Targets = Sequence[Mapping[str, Tensor]]
"""For each picture ``labels`` (n), int64, and ``boxes`` (n, 4): cx, cy, w, h in 0..1."""

Whole = Mapping[str, Tensor]
"""Of a batch that is a part of more ("pictures" and "targets"): how many of them a part has in the mean."""

NEGATIVE, PADDING = -1, -2
"""Instead of a target's number: a query that is to find nothing, and one that does not count."""

ALPHA, GAMMA = 0.25, 2.0
"""Of the focal loss (Lin et al. 2017)."""


class Pairs(NamedTuple):
    """Matched predictions and targets; four index tensors of one length.

    ``query`` counts through the queries of all layers, ``target`` through those of all pictures.
    """

    picture: Tensor
    query: Tensor
    target: Tensor
    layer: Tensor


@dataclass(frozen=True)
class SetLoss:
    """The loss of DETR (Carion et al. 2020, section 3.1), with softmax or focal classification.

    The weights serve the matching cost and the loss alike, as they do in DETR and Deformable DETR.
    All layers are matched and compared in one go.

    Args:
        classification: "softmax" with "no object" as the last class, or "focal" (Zhu et al. 2021).
        class_weight: None is the published one, 1 for softmax and 2 for focal.
        no_object_weight: of "no object" in the cross-entropy of "softmax".
    """

    classification: str = "softmax"
    class_weight: float | None = None
    box_weight: float = 5.0
    giou_weight: float = 2.0
    no_object_weight: float = 0.1

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each kind of term."""
        usual = 1.0 if self.classification == "softmax" else 2.0
        classes = usual if self.class_weight is None else self.class_weight
        return {"class": classes, "boxes": self.box_weight, "giou": self.giou_weight}

    def __call__(
        self, outputs: Mapping[str, Any], targets: Targets, whole: Whole | None = None
    ) -> dict[str, Tensor]:
        """Every term, not yet weighted.

        Args:
            outputs: what the model returned: ``logits`` (batch, queries, classes), ``boxes``
                (batch, queries, 4) and, in training, ``aux``, ``proposals`` and ``denoising``.
            targets: for each picture ``labels`` (n), int64, and ``boxes`` (n, 4): cx, cy, w, h in
                0..1; n may be 0.
            whole: what terms are divided by, so that their means over all parts are those of the whole;
                None where this is the whole. Two things are then still of each part: denoising queries,
                whose groups its fullest picture decides, and in a picture of more objects than queries
                the weight of those that none is matched with.

        Returns:
            ``class``, ``boxes`` and ``giou``; of earlier layers ``class_0`` ..., of the proposals
            ``class_proposals`` ..., of denoising queries ``class_denoising``, ``class_denoising_0``
            ...: scalars in float32.

        Raises:
            ValueError: targets that do not fit the outputs, or predictions that are not finite.
        """
        layers = {"": outputs}
        layers |= {f"_{i}": layer for i, layer in enumerate(outputs.get("aux", ()))}
        if "proposals" in outputs:
            layers["_proposals"] = outputs["proposals"]
        sizes = [layer["logits"].shape[1] for layer in layers.values()]
        logits, boxes = joined(layers.values())
        check_targets(targets, logits, self._classes(logits))
        pairs = self._match(logits, boxes, sizes, targets)
        count = target_count(targets, logits.device, whole)
        terms = self._terms(logits, boxes, sizes, pairs, targets, count, whole=whole)
        named = split_terms(terms, list(layers))
        if "denoising" in outputs:
            named |= self._denoising(outputs["denoising"], targets, count)
        return named

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of all terms, which is what learns."""
        weights = self.weights
        return torch.stack(
            [weights[name.split("_")[0]] * term for name, term in terms.items()]
        ).sum()

    def match(self, outputs: Mapping[str, Tensor], targets: Targets) -> list[tuple[Tensor, Tensor]]:
        """The cheapest assignment of targets to different queries, for each picture.

        Returns:
            for each picture query numbers and target numbers, of one length.

        Raises:
            ValueError: as for the loss.
        """
        logits, boxes = joined([outputs])
        check_targets(targets, logits, self._classes(logits))
        with torch.no_grad():
            costs = self._costs(logits, boxes, targets)
        counts = [len(target["labels"]) for target in targets]
        return assigned([cost[:, :count] for cost, count in zip(costs, counts, strict=True)])

    def _classes(self, logits: Tensor) -> int:
        return logits.shape[-1] - (self.classification == "softmax")

    @torch.no_grad()
    def _costs(self, logits: Tensor, boxes: Tensor, targets: Targets) -> Tensor:
        """``(batch, queries, most targets)``; columns beyond a picture's targets mean nothing."""
        labels, wanted, _ = pad_targets(targets, boxes.dtype)
        index = labels[:, None].expand(-1, logits.shape[1], -1)
        if self.classification == "softmax":
            classes = -logits.softmax(-1).gather(2, index)
        else:
            chosen = logits.gather(2, index)
            found = ALPHA * (-chosen).sigmoid() ** GAMMA * F.softplus(-chosen)
            missed = (1 - ALPHA) * chosen.sigmoid() ** GAMMA * F.softplus(chosen)
            classes = found - missed
        giou = generalized_iou(to_corners(boxes)[:, :, None], to_corners(wanted)[:, None])
        weights = self.weights
        costs = weights["class"] * classes - weights["giou"] * giou
        return costs + weights["boxes"] * torch.cdist(boxes, wanted, p=1)

    def _match(
        self, logits: Tensor, boxes: Tensor, sizes: Sequence[int], targets: Targets
    ) -> Pairs:
        """Match all layers of all pictures, with one copy of the costs to the CPU."""
        costs = self._costs(logits.detach(), boxes.detach(), targets).cpu().numpy()
        found: list[np.ndarray] = [np.empty((4, 0), np.int64)]
        first_target = 0
        counts = [len(target["labels"]) for target in targets]
        for picture, cost in enumerate(finite_costs(costs, counts)):
            first_query = 0
            for layer, size in enumerate(sizes):
                query, target = linear_sum_assignment(cost[first_query : first_query + size])
                place = np.full_like(query, picture), np.full_like(query, layer)
                found.append(
                    np.stack([place[0], query + first_query, target + first_target, place[1]])
                )
                first_query += size
            first_target += counts[picture]
        return Pairs(*torch.from_numpy(np.concatenate(found, axis=1)).to(logits.device))

    def _terms(
        self,
        logits: Tensor,
        boxes: Tensor,
        sizes: Sequence[int],
        pairs: Pairs,
        targets: Targets,
        count: Tensor | float,
        counted: Tensor | None = None,
        whole: Whole | None = None,
    ) -> dict[str, Tensor]:
        """Each term ``(layers)``.

        Args:
            count: what sums over targets are divided by.
            counted: ``(batch, queries)``, False = this query has no part in the class loss.
        """
        labels = torch.cat([target["labels"] for target in targets])[pairs.target]
        wanted = torch.cat([target["boxes"].reshape(-1, 4) for target in targets])
        wanted = wanted.to(boxes.dtype)[pairs.target]
        predicted = boxes[pairs.picture, pairs.query]
        distance = (predicted - wanted).abs().sum(-1)
        giou = 1 - generalized_iou(to_corners(predicted), to_corners(wanted))
        wanted_classes = labels.new_full(logits.shape[:2], self._classes(logits))
        wanted_classes[pairs.picture, pairs.query] = labels
        none = boxes.new_zeros(len(sizes))
        return {
            "class": self._class_term(logits, wanted_classes, sizes, count, counted, whole),
            "boxes": none.index_add(0, pairs.layer, distance) / count,
            "giou": none.index_add(0, pairs.layer, giou) / count,
        }

    def _class_term(
        self,
        logits: Tensor,
        wanted: Tensor,
        sizes: Sequence[int],
        count: Tensor | float,
        counted: Tensor | None,
        whole: Whole | None,
    ) -> Tensor:
        """``(layers)``; ``wanted`` (batch, queries) is one beyond the last class for "no object"."""
        no_object = self._classes(logits)
        if self.classification == "focal":
            target = F.one_hot(wanted, no_object + 1)[..., :-1].to(logits.dtype)
            loss = sigmoid_focal_loss(logits, target, ALPHA, GAMMA).sum(-1)
            return per_layer(loss if counted is None else loss * counted, sizes) / count
        weight = torch.ones_like(wanted, dtype=logits.dtype)
        weight = weight.masked_fill(wanted == no_object, self.no_object_weight)
        if counted is not None:
            weight = weight * counted
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        if whole is None:
            divisor = per_layer(weight, sizes).clamp(min=torch.finfo(weight.dtype).tiny)
        else:
            divisor = class_weight(whole, weight.new_tensor(sizes), self.no_object_weight)
        return per_layer(loss.view_as(weight) * weight, sizes) / divisor

    def _denoising(
        self, outputs: Mapping[str, Any], targets: Targets, count: Tensor | float
    ) -> dict[str, Tensor]:
        """Queries that were made from targets need no matching (Li et al. 2022, section 4)."""
        layers = {"_denoising": outputs}
        layers |= {f"_denoising_{i}": layer for i, layer in enumerate(outputs["aux"])}
        ids = outputs["target_ids"]
        first = np.cumsum([0, *(len(target["labels"]) for target in targets)])[:-1]
        picture, query = (ids >= 0).nonzero(as_tuple=True)
        target = ids[picture, query] + torch.as_tensor(first, device=ids.device)[picture]
        size, depth = ids.shape[1], len(layers)
        layer = torch.arange(depth, device=ids.device).repeat_interleave(len(query))
        pairs = Pairs(
            picture.repeat(depth), query.repeat(depth) + layer * size, target.repeat(depth), layer
        )
        logits, boxes = joined(layers.values())
        counted = (ids != PADDING).repeat(1, depth)
        terms = self._terms(
            logits, boxes, [size] * depth, pairs, targets, count * outputs["groups"], counted
        )
        return split_terms(terms, list(layers))


def joined(layers: Any) -> tuple[Tensor, Tensor]:
    """Logits and boxes of several layers, one after the other along the queries, in float32."""
    logits = torch.cat([layer["logits"] for layer in layers], dim=1)
    boxes = torch.cat([layer["boxes"] for layer in layers], dim=1)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype), boxes.to(dtype)


def split_terms(terms: Mapping[str, Tensor], layers: Sequence[str]) -> dict[str, Tensor]:
    """Terms ``(layers)`` by name: the kind and the layer's suffix."""
    return {
        kind + layer: value
        for kind, values in terms.items()
        for layer, value in zip(layers, values.unbind(), strict=True)
    }


def per_layer(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Sums over pictures and queries: ``(batch, queries of all layers) -> (layers)``."""
    return torch.stack([part.sum() for part in values.split(list(sizes), dim=1)])


def pad_targets(targets: Targets, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Labels ``(batch, most)``, boxes ``(batch, most, 4)``, and ``(batch, most)``: True = a target."""
    labels = pad_sequence([target["labels"] for target in targets], batch_first=True)
    boxes = [target["boxes"].reshape(-1, 4).to(dtype) for target in targets]
    real = [torch.ones_like(target["labels"], dtype=torch.bool) for target in targets]
    return (
        labels,
        pad_sequence(boxes, batch_first=True),
        pad_sequence(real, batch_first=True),
    )


def class_weight(whole: Whole, queries: Tensor | int, no_object_weight: float) -> Tensor:
    """What the weights of classes add up to over the queries of a picture, as many or as many of each layer,
    and the pictures of a part: 1 where a query is matched."""
    return (
        no_object_weight * queries * whole["pictures"] + (1 - no_object_weight) * whole["targets"]
    )


def target_count(
    targets: Targets, device: torch.device, whole: Whole | None = None
) -> Tensor | float:
    """Targets of this batch, or the mean of all processes where there are several; 1 at least. Of a part of
    more that mean over all parts.

    Without gradients each process counts its own: in evaluation they hold unequally many batches.
    """
    if whole is not None:
        return whole["targets"] + (whole["targets"] == 0)
    count = sum(len(target["labels"]) for target in targets)
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    if not (several and torch.is_grad_enabled()):
        return max(float(count), 1.0)
    total = torch.tensor(float(count), device=device)
    torch.distributed.all_reduce(total)
    return (total / torch.distributed.get_world_size()).clamp(min=1)


def check_targets(targets: Targets, logits: Tensor, classes: int) -> None:
    """Refuse what would end in an index error, or in a loss that means nothing.

    Raises:
        ValueError: one sentence that names the picture's number in the batch.
    """
    if len(targets) != len(logits):
        raise ValueError(f"{len(targets)} targets were given for {len(logits)} pictures.")
    for i, target in enumerate(targets):
        labels, boxes = target["labels"], target["boxes"]
        if labels.dim() != 1 or boxes.numel() != 4 * len(labels):
            raise ValueError(
                f"targets[{i}]: labels (n) and boxes (n, 4) are wanted, "
                f"not {tuple(labels.shape)} and {tuple(boxes.shape)}."
            )
    labels = torch.cat([target["labels"] for target in targets])
    if len(labels):
        low, high = torch.stack(labels.aminmax()).tolist()
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise ValueError(
                f"targets: label {wrong} is outside 0..{classes - 1}, the model's {classes} classes."
            )


def assigned(costs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The cheapest assignment for each picture's costs ``(queries, targets)``: query numbers and target
    numbers, on the CPU.

    Raises:
        ValueError: some are NaN or infinite.
    """
    plain = finite_costs([cost.cpu().numpy() for cost in costs], [cost.shape[1] for cost in costs])
    return [
        tuple(map(torch.from_numpy, linear_sum_assignment(cost)))  # type: ignore[misc]
        for cost in plain
    ]


def finite_costs(
    costs: Sequence[np.ndarray] | np.ndarray, counts: Sequence[int]
) -> list[np.ndarray]:
    """The costs ``(queries, targets)`` of each picture.

    Raises:
        ValueError: some are NaN or infinite.
    """
    for i, cost in enumerate(costs):
        if not np.isfinite(cost).all():
            raise ValueError(
                f"the cost of matching picture {i} of the batch is not finite: the model's outputs, "
                "or the boxes of the target, hold NaN or infinity. A lower learning rate, "
                "warm-up or gradient clipping keep training from diverging."
            )
    return [cost[:, :count] for cost, count in zip(costs, counts, strict=True)]
