"""A set of masks against a set of segments: MaskFormer's matching and losses (Cheng et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from family.losses.set_matching import Whole, assigned, class_weight, target_count

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

    def __call__(
        self, logits: Tensor, masks: Tensor, targets: Segments, whole: Whole | None = None
    ) -> dict[str, Tensor]:
        """``class``, ``mask`` and ``dice``, weighted: scalars in float32.

        Args:
            logits: ``(batch, queries, classes + 1)``.
            masks: ``(batch, queries, rows, columns)``, logits; resized to the targets'.
            whole: what terms are divided by, so that their means over all parts are those of the whole;
                None where this is the whole.

        Raises:
            ValueError: targets that do not fit the outputs, or predictions that are not finite.
        """
        check_segments(targets, logits)
        logits, truth = logits.float(), joined(targets)
        pairs = self._match(logits, masks, truth, [len(target["labels"]) for target in targets])
        picture, query, number = (
            torch.cat(part).to(logits.device) for part in zip(*pairs, strict=True)
        )
        wanted = logits.new_full(logits.shape[:2], logits.shape[-1] - 1, dtype=torch.long)
        wanted[picture, query] = truth.labels[picture, number]
        weight = logits.new_ones(logits.shape[-1])
        weight[-1] = self.no_object_weight
        flat = logits.flatten(0, 1), wanted.flatten(), weight
        if whole is None:
            classes = F.cross_entropy(*flat)
        else:
            divisor = class_weight(whole, logits.shape[1], self.no_object_weight)
            classes = F.cross_entropy(*flat, reduction="sum") / divisor
        # The others' masks teach nothing, and need not be resized.
        made = resized(masks[picture, query][:, None], truth.size)[:, 0]
        true, counted = truth.masks[picture, number], truth.counted[picture]
        each = F.binary_cross_entropy_with_logits(made, true, counted, reduction="none").sum(1)
        dice = 1 - overlap(made.sigmoid() * counted, true, (made.sigmoid() * true).sum(-1))
        count = target_count(targets, logits.device, whole)
        return {
            "class": self.class_weight * classes,
            "mask": self.mask_weight * (each / counted.sum(1).clamp(min=1)).sum() / count,
            "dice": self.dice_weight * dice.sum() / count,
        }

    def match(
        self, logits: Tensor, masks: Tensor, targets: Segments
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The cheapest assignment of segments to different queries: for each picture its number as often as
        there are pairs, query numbers and segment numbers, on the CPU.

        Args:
            logits, masks: as of the loss.

        Raises:
            ValueError: predictions that are not finite.
        """
        return self._match(
            logits, masks, joined(targets), [len(target["labels"]) for target in targets]
        )

    @torch.no_grad()
    def _match(
        self, logits: Tensor, masks: Tensor, truth: Truth, counts: Sequence[int]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """:meth:`match` where the segments are together already, so many of each picture."""
        made, true = resized(masks, truth.size), truth.masks.transpose(1, 2)
        counted = truth.counted[:, None]
        chance, inside = made.sigmoid() * counted, (made @ true)
        # The cross-entropy of a logit x and a truth t is softplus(x) - x t.
        each = (F.softplus(made) * counted).sum(-1, keepdim=True) - inside
        classes = logits.float().softmax(-1)
        labels = truth.labels[:, None].expand(-1, logits.shape[1], -1)
        costs = (
            self.mask_weight * each / counted.sum(-1, keepdim=True).clamp(min=1)
            - self.class_weight * classes.gather(2, labels)
            - self.dice_weight * overlap(chance[:, :, None], truth.masks[:, None], chance @ true)
        )
        found = assigned([cost[:, :count] for cost, count in zip(costs, counts, strict=True)])
        return [(torch.full_like(query, i), query, n) for i, (query, n) in enumerate(found)]


class Truth(NamedTuple):
    """The segments of a batch, each picture's filled up with empty ones."""

    labels: Tensor
    """``(batch, most)``."""
    masks: Tensor
    """``(batch, most, pixels)``, float32."""
    counted: Tensor
    """``(batch, pixels)``, float32."""
    size: tuple[int, int]


def joined(targets: Segments) -> Truth:
    """Together; masks are empty where pixels do not count."""
    masks = pad_sequence([target["masks"].float() for target in targets], batch_first=True)
    height, width = masks.shape[-2:]
    every = masks.new_ones(height, width)
    counted = torch.stack([target.get("counted", every).float() for target in targets]).flatten(1)
    labels = pad_sequence([target["labels"] for target in targets], batch_first=True)
    return Truth(labels, masks.flatten(2) * counted[:, None], counted, (height, width))


def resized(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """``(batch, queries, rows, columns) -> (batch, queries, pixels)``, float32."""
    return F.interpolate(masks.float(), size, mode="bilinear").flatten(2)


def overlap(chance: Tensor, true: Tensor, both: Tensor) -> Tensor:
    """Dice's coefficient of chances and truth ``(..., pixels)``, one added above and below.

    Args:
        both: the sum of their product over the pixels.
    """
    return (2 * both + 1) / (chance.sum(-1) + true.sum(-1) + 1)


def class_segments(
    labels: Tensor | Sequence[Tensor], ignored: int = 255
) -> list[dict[str, Tensor]]:
    """The segments of ``labels (batch, height, width)``, or a list of ``(height, width)``: of each class that
    is there all its pixels."""
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
        if masks.shape[1:] != targets[0]["masks"].shape[1:]:
            raise ValueError(
                f"targets[{i}]: masks of {tuple(masks.shape[1:])} pixels beside ones of "
                f"{tuple(targets[0]['masks'].shape[1:])}: those of a batch must be equally large."
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
