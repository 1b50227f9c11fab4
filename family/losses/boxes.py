"""Boxes: two ways to write them, and how well they overlap."""

from __future__ import annotations

import torch
from torch import Tensor


def to_corners(boxes: Tensor) -> Tensor:
    """Centre x, centre y, width, height -> left, top, right, bottom: ``(..., 4)``."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def to_centres(boxes: Tensor) -> Tensor:
    """Left, top, right, bottom -> centre x, centre y, width, height: ``(..., 4)``."""
    first, last = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(first + last) / 2, last - first], dim=-1)


def generalized_iou(ours: Tensor, theirs: Tensor) -> Tensor:
    """Generalized intersection over union (Rezatofighi et al. 2019), -1..1.

    The leading dimensions broadcast: ``(n, 4), (n, 4) -> (n)`` box by box, and
    ``(n, 1, 4), (m, 4) -> (n, m)`` all pairs. A box of no area, or with its corners the wrong way
    round, counts as area 0: the result and its gradient stay finite.

    Args:
        ours, theirs: corners, as :func:`to_corners` gives them.
    """
    overlap = _area(
        torch.maximum(ours[..., :2], theirs[..., :2]),
        torch.minimum(ours[..., 2:], theirs[..., 2:]),
    )
    union = _area(ours[..., :2], ours[..., 2:]) + _area(theirs[..., :2], theirs[..., 2:]) - overlap
    hull = _area(
        torch.minimum(ours[..., :2], theirs[..., :2]),
        torch.maximum(ours[..., 2:], theirs[..., 2:]),
    )
    return _ratio(overlap, union) - _ratio(hull - union, hull)


def _area(first: Tensor, last: Tensor) -> Tensor:
    sides = (last - first).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """``part / whole``, and 0 where there is no whole: a plain division gives NaN there, and
    gradients beyond float32 close to it.
    """
    positive = whole > 1e-12
    return torch.where(positive, part / torch.where(positive, whole, 1.0), 0.0)
