"""Sine positions in two dimensions, over the part of a map that is picture."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_waves(coordinates: Tensor, dim: int) -> Tensor:
    """Sines and cosines, interleaved, of coordinates on the scale 0..1 (Carion et al. 2020).

    Args:
        coordinates: ``(..., n)``; the longest wave turns once in 10,000 times their range.
        dim: channels a coordinate, even.

    Returns:
        ``(..., n * dim)``, the channels of the first coordinate first.
    """
    steps = torch.arange(0, dim, 2, device=coordinates.device).to(coordinates.dtype) / dim
    angles = 2 * math.pi * coordinates.unsqueeze(-1) / torch.pow(10_000.0, steps)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-3)


def cell_ends(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Where each cell of a map ends, down and across, as a share of its picture.

    Args:
        mask: ``(batch, height, width)``, True = picture; the picture stands at the top left.

    Returns:
        ``(batch, height, width, 2)``: y, then x, both in 0..1.
    """
    cells = mask.to(dtype)
    down, across = cells.cumsum(1), cells.cumsum(2)
    # The small term is the original's: rows that are all padding would divide by 0.
    ends = down / (down[:, -1:] + 1e-6), across / (across[:, :, -1:] + 1e-6)
    return torch.stack(ends, dim=-1)


def sine_positions(mask: Tensor, dim: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The position of every cell ``(batch, height, width)`` -> ``(batch, height * width, dim)``.

    A padded picture gets the positions that it has alone. Half of the channels hold y, half x.
    """
    working = torch.promote_types(dtype, torch.float32)
    return sine_waves(cell_ends(mask, working), dim // 2).flatten(1, 2).to(dtype)
