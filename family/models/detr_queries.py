"""Queries of DETR that know where they look: anchors, denoising, proposals of the encoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from family.heads.detection import DetectionHead, class_scores, mlp
from family.inputs.sine import cell_ends, sine_waves
from family.losses.boxes import to_centres, to_corners
from family.losses.set_matching import NEGATIVE, PADDING, Targets, pad_targets


class AnchorQueries(nn.Module):
    """A learned vector and a learned box for each query (DAB-DETR, Liu et al. 2022, section 4).

    Boxes are kept before the sigmoid. Their waves, through two layers, are the query's position.
    """

    def __init__(self, queries: int, dim: int) -> None:
        super().__init__()
        self.content = nn.Parameter(torch.randn(queries, dim))
        centres, size = torch.rand(queries, 2), torch.full((queries, 2), 0.2)
        self.boxes = nn.Parameter(torch.cat([centres, size], dim=1).logit(eps=0.02))
        self.to_position = mlp(2 * dim, dim, dim)

    def position(self, anchors: Tensor, dtype: torch.dtype) -> Tensor:
        """``(batch, queries, 4)`` -> ``(batch, queries, dim)``."""
        x, y, width, height = anchors.sigmoid().unbind(-1)
        waves = sine_waves(torch.stack([y, x, width, height], dim=-1), self.content.shape[1] // 2)
        return self.to_position(waves.to(dtype))


class Proposals(nn.Module):
    """The likeliest cells of the encoder's map, as first anchors (two-stage Deformable DETR, Zhu et
    al. 2021, section 4.2; the queries' content stays learned, as in DINO, Zhang et al. 2023).
    """

    SIZE = 0.1
    """Width and height of a cell's box before the head refines it."""

    def __init__(self, dim: int, num_classes: int, classification: str) -> None:
        super().__init__()
        self.classification = classification
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim))
        self.head = DetectionHead(dim, num_classes, classification, refine=True)

    def forward(self, memory: Tensor, mask: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The best cells, ``count`` of them or all.

        Args:
            memory: ``(batch, cells, dim)``.
            mask: ``(batch, height, width)``, True = picture.

        Returns:
            logits ``(batch, cells, classes)``, boxes before the sigmoid ``(batch, cells, 4)``, and
            ``(batch, cells)``: False where the picture has no more cells, only padding.
        """
        real = mask.flatten(1)
        x = self.project(memory)
        logits = self.head.classes(x)
        scores = class_scores(logits.detach(), self.classification).amax(-1)
        best = scores.masked_fill(~real, -1.0).topk(min(count, real.shape[1])).indices
        index = best[..., None]
        anchors = (
            self._grid(mask).expand(memory.shape[0], -1, -1).gather(1, index.expand(-1, -1, 4))
        )
        chosen = x.gather(1, index.expand(-1, -1, x.shape[-1]))
        logits = logits.gather(1, index.expand(-1, -1, logits.shape[-1]))
        return logits, self.head.box_logits(chosen, anchors), real.gather(1, best)

    def _grid(self, mask: Tensor) -> Tensor:
        """A box around the centre of each cell, before the sigmoid: ``(batch, cells, 4)``."""
        ends = cell_ends(mask, torch.float32)
        y = (ends[..., 0] - ends[:, :1, :, 0] / 2).flatten(1)
        x = (ends[..., 1] - ends[:, :, :1, 1] / 2).flatten(1)
        size = torch.full_like(x, self.SIZE)
        return torch.stack([x, y, size, size], dim=-1).logit(eps=1e-3)


class NoisedQueries(NamedTuple):
    """Queries made from targets; ``target_ids`` is the target's number, NEGATIVE or PADDING."""

    content: Tensor
    anchors: Tensor
    target_ids: Tensor
    groups: int


class Denoising(nn.Module):
    """Targets with noise as further queries of training, whose answer is known without matching.

    As in DN-DETR (Li et al. 2022), with the negatives of DINO (Zhang et al. 2023, section 3.3):
    boxes moved a little are to find their target, boxes moved far are to find nothing.

    Args:
        queries: about how many for a picture: as many groups as fit, one at least.
    """

    LABEL_NOISE = 0.25
    """The chance that a query is told a class drawn at random."""

    def __init__(self, num_classes: int, dim: int, queries: int) -> None:
        super().__init__()
        self.queries = queries
        self.labels = nn.Embedding(num_classes, dim)

    def forward(self, targets: Targets) -> NoisedQueries:
        """Queries of each group: the targets moved a little, then the targets moved far."""
        device = self.labels.weight.device
        labels, boxes, real = pad_targets(targets, torch.float32)
        if labels.shape[1] == 0:  # no object in the batch: all padding, so that shapes stay alike
            labels, boxes = labels.new_zeros(len(labels), 1), boxes.new_zeros(len(labels), 1, 4)
            real = real.new_zeros(len(labels), 1)
        batch, most = labels.shape
        groups = max(1, self.queries // (2 * most))
        shape = batch, groups, 2, most
        flipped = torch.rand(shape, device=device) < self.LABEL_NOISE
        drawn = torch.randint(self.labels.num_embeddings, shape, device=device)
        labels = torch.where(flipped, drawn, labels[:, None, None])
        ids = torch.arange(most, device=device).expand(shape).clone()
        ids[:, :, 1] = NEGATIVE
        ids = ids.masked_fill(~real[:, None, None], PADDING)
        anchors = self._moved(boxes[:, None, None].expand(*shape, 4)).logit(eps=1e-3)
        return NoisedQueries(
            self.labels(labels.flatten(1)), anchors.flatten(1, 3), ids.flatten(1), groups
        )

    @staticmethod
    def _moved(boxes: Tensor) -> Tensor:
        """Each corner moves by up to half a side; in the second row by half to a whole side."""
        share = torch.rand_like(boxes)
        share[:, :, 1] += 1
        sign = torch.randint_like(boxes, 2) * 2 - 1
        half_sides = boxes[..., 2:].repeat(1, 1, 1, 1, 2) / 2
        first, last = (to_corners(boxes) + sign * share * half_sides).clamp(0, 1).chunk(2, dim=-1)
        corners = torch.cat([torch.minimum(first, last), torch.maximum(first, last)], dim=-1)
        return to_centres(corners)


def denoising_mask(target_ids: Tensor, groups: int, queries: int) -> Tensor:
    """Who may attend to whom: ``(batch, queries + noised, queries + noised)``, True = may.

    Queries to be matched see only each other, since noised ones carry the answer; a noised query
    sees its group and the former; nobody sees padding.
    """
    batch, noised = target_ids.shape
    device = target_ids.device
    group = torch.arange(noised, device=device) // (noised // groups) + 1
    group = torch.cat([group.new_zeros(queries), group])
    seen = (group[None] == 0) | (group[:, None] == group[None])
    real = torch.cat([target_ids.new_ones(batch, queries).bool(), target_ids != PADDING], dim=1)
    return seen & real[:, None]
