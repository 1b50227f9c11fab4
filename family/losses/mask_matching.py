"""A set of masks against a set of segments: MaskFormer's matching and losses (Cheng et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from family.losses.set_matching import assigned, target_count

Segments = Sequence[Mapping[str, Tensor]]
"""For each picture ``labels`` (n), int64, ``masks`` (n, height, width), bool, and maybe ``counted`` (height,
width), bool, False = a pixel that counts for nothing."""


@dataclass(frozen=True)
class MaskLoss:
    """Each segment is matched with one query, the others are to be "no object", the last class.

    As in Mask2Former (Cheng et al. 2022, section 3.3) and EoMT (Kerssies et al. 2025), whose weights these
    are, for costs and losses alike; but over all pixels that count, not over points drawn among them.

    Args:
        no_object_weight: of "no object" in the cross-entropy of the classes.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    no_object_weight: float = 0.1

    def __call__(self, logits: Tensor, masks: Tensor, targets: Segments) -> dict[str, Tensor]:
        """``class``, ``mask`` and ``dice``, weighted: scalars in float32.

        Args:
            logits: ``(batch, queries, classes + 1)``.
            masks: ``(batch, queries, rows, columns)``, logits; resized to the targets'.

        Raises:
            ValueError: targets that do not fit the outputs, or predictions that are not finite.
        """
        check_segments(targets, logits)
        logits, found = logits.float(), pixels(masks, targets)
        pairs = self.match(logits, found, targets)
        count = target_count(targets, logits.device)
        wanted = logits.new_full(logits.shape[:2], logits.shape[-1] - 1, dtype=torch.long)
        mask = dice = logits.new_zeros(())
        for i, (query, number) in enumerate(pairs):
            wanted[i, query] = targets[i]["labels"][number]
            made, true = found[i][0][query], found[i][1][number]
            each = F.binary_cross_entropy_with_logits(made, true, reduction="none").mean(1)
            mask = mask + each.sum()
            dice = dice + (1 - overlap(made, true)).sum()
        weight = logits.new_ones(logits.shape[-1])
        weight[-1] = self.no_object_weight
        classes = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight)
        return {
            "class": self.class_weight * classes,
            "mask": self.mask_weight * mask / count,
            "dice": self.dice_weight * dice / count,
        }

    @torch.no_grad()
    def match(
        self, logits: Tensor, found: Sequence[tuple[Tensor, Tensor]], targets: Segments
    ) -> list[tuple[Tensor, Tensor]]:
        """The cheapest assignment of segments to different queries, for each picture; see
        :meth:`~family.losses.set_matching.SetLoss.match`.

        Args:
            found: what :func:`pixels` gives.
        """
        costs = []
        for one, (made, true), target in zip(logits, found, targets, strict=True):
            each = F.softplus(-made) @ true.T + F.softplus(made) @ (1 - true).T
            costs.append(
                self.mask_weight * each / max(1, made.shape[1])
                - self.class_weight * one.softmax(-1)[:, target["labels"]]
                - self.dice_weight * overlap(made[:, None], true[None])
            )
        return [tuple(x.to(logits.device) for x in pair) for pair in assigned(costs)]  # type: ignore[misc]


def pixels(masks: Tensor, targets: Segments) -> list[tuple[Tensor, Tensor]]:
    """Of each picture the logits of its queries' masks ``(queries, pixels)`` and the truth of its segments
    ``(n, pixels)``, float32, at the pixels that count."""
    found = []
    for made, target in zip(masks, targets, strict=True):
        true = target["masks"].float()
        resized = F.interpolate(made[None].float(), true.shape[-2:], mode="bilinear")[0]
        rows = resized.flatten(1), true.flatten(1)
        if "counted" in target:
            counted = target["counted"].flatten()
            rows = rows[0][:, counted], rows[1][:, counted]
        found.append(rows)
    return found


def overlap(made: Tensor, true: Tensor) -> Tensor:
    """Dice's coefficient of logits and truth ``(..., pixels)``, one added above and below."""
    chance = made.sigmoid()
    return (2 * (chance * true).sum(-1) + 1) / (chance.sum(-1) + true.sum(-1) + 1)


def class_segments(labels: Tensor, ignored: int = 255) -> list[dict[str, Tensor]]:
    """The segments of ``labels (batch, height, width)``: of each class that is there all its pixels."""
    found = []
    for one in labels:
        counted = one != ignored
        classes = one[counted].unique()
        masks = one == classes[:, None, None]
        found.append({"labels": classes, "masks": masks, "counted": counted})
    return found


def check_segments(targets: Segments, logits: Tensor) -> None:
    """Refuse what would end in an index error.

    Raises:
        ValueError: one sentence that names the picture's number in the batch.
    """
    if len(targets) != len(logits):
        raise ValueError(f"{len(targets)} targets were given for {len(logits)} pictures.")
    classes, queries = logits.shape[-1] - 1, logits.shape[1]
    for i, target in enumerate(targets):
        labels, masks = target["labels"], target["masks"]
        if masks.dim() != 3 or labels.shape != masks.shape[:1]:
            raise ValueError(
                f"targets[{i}]: labels (n) and masks (n, height, width) are wanted, "
                f"not {tuple(labels.shape)} and {tuple(masks.shape)}."
            )
        if len(labels) > queries:
            raise ValueError(
                f"targets[{i}] has {len(labels)} segments, but the model only {queries} queries."
            )
        for label in (labels.min(), labels.max()) if len(labels) else ():
            if not 0 <= label < classes:
                raise ValueError(
                    f"targets[{i}]: label {int(label)} is outside 0..{classes - 1}, the model's "
                    f"{classes} classes."
                )
