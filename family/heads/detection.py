"""Queries become classes and boxes, and these become the list of objects in a picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

CLASSIFICATIONS = ("softmax", "focal")


class DetectionHead(nn.Module):
    """A linear layer for the class, three for the box (Carion et al. 2020, section 3.2).

    Args:
        dim: of the queries.
        num_classes: without "no object".
        classification: "softmax" over the classes and, last, "no object"; "focal" is a sigmoid for
            each class, which starts at a probability of 0.01 (Lin et al. 2017, section 4.1).
        refine: boxes are corrections of given ones, and start as none.
    """

    def __init__(
        self, dim: int, num_classes: int, classification: str = "softmax", refine: bool = False
    ) -> None:
        super().__init__()
        if classification not in CLASSIFICATIONS:
            raise ValueError(
                f"classification={classification!r} is unknown; choose one of: "
                f"{', '.join(CLASSIFICATIONS)}."
            )
        softmax = classification == "softmax"
        self.classes = nn.Linear(dim, num_classes + 1 if softmax else num_classes)
        if not softmax:
            nn.init.constant_(self.classes.bias, -math.log(0.99 / 0.01))
        self.box = mlp(dim, dim, dim, 4)
        if refine:
            for parameter in self.box[-1].parameters():
                nn.init.zeros_(parameter)

    def box_logits(self, queries: Tensor, anchors: Tensor | None = None) -> Tensor:
        """Boxes before the sigmoid, ``(..., dim) -> (..., 4)``, at least in float32.

        Args:
            anchors: the boxes to refine, before the sigmoid as well.
        """
        logits = self.box(queries)
        # In bfloat16 a box would know its place only to 1 part in 256.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits if anchors is None else anchors + logits


def mlp(*dims: int) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for width, following in itertools.pairwise(dims):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def class_scores(logits: Tensor, classification: str) -> Tensor:
    """Probabilities ``(..., classes)`` of the true classes, without "no object"."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.softmax(-1)[..., :-1] if classification == "softmax" else logits.sigmoid()


def ranked(
    logits: Tensor, classification: str = "softmax", top: int = 100
) -> tuple[Tensor, Tensor, Tensor]:
    """Score, class and query of the likeliest objects, each ``(batch, at most top)``, best first; see
    :func:`postprocess`."""
    scores = class_scores(logits, classification)
    _, queries, classes = scores.shape
    if classification == "softmax":
        scores, labels = scores.max(-1)
        scores, query = scores.topk(min(top, queries))
        return scores, labels.gather(1, query), query
    scores, pair = scores.flatten(1).topk(min(top, queries * classes))
    return scores, pair % classes, pair // classes


def postprocess(
    outputs: Mapping[str, Tensor],
    sizes: Sequence[tuple[int, int]] | Tensor,
    classification: str = "softmax",
    top: int = 100,
) -> list[dict[str, Tensor]]:
    """The objects of each picture, best first.

    With "softmax" a query is one object of its best class; with "focal" the best pairs of query and
    class count (Deformable DETR). A score of 0 is no object: models fill up rows with them.

    Args:
        outputs: what the model returned: ``logits``, and ``boxes`` as cx, cy, w, h in 0..1.
        sizes: (height, width) of each picture in pixels, as the boxes are wanted.
        top: at most so many.

    Returns:
        for each picture ``scores`` (n), ``labels`` (n) and ``boxes`` (n, 4): left, top, right,
        bottom in pixels, inside the picture.
    """
    scores, labels, query = ranked(outputs["logits"], classification, top)
    if len(sizes) != len(scores):
        raise ValueError(f"sizes has {len(sizes)} entries for {len(scores)} pictures.")
    boxes = outputs["boxes"].to(scores.dtype).gather(1, query[..., None].expand(-1, -1, 4))
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    corners = torch.cat([centre - half, centre + half], dim=-1).clamp(0, 1)
    height, width = torch.as_tensor(sizes, device=corners.device).to(corners.dtype).unbind(-1)
    corners = corners * torch.stack([width, height, width, height], dim=-1)[:, None]
    return [
        {"scores": s[s > 0], "labels": label[s > 0], "boxes": b[s > 0]}
        for s, label, b in zip(scores, labels, corners, strict=True)
    ]
