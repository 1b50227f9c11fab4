"""Positions that are added to embeddings."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from family.core.config import TransformerConfig


def sinusoidal(positions: Tensor, dim: int, timing: bool = False) -> Tensor:
    """Sine and cosine waves of geometrically growing length (Vaswani et al. 2017, section 3.5).

    Sines fill the first half of the channels and cosines the second, as in the authors' own code
    (tensor2tensor) and in Marian; the paper interleaves them, a fixed permutation of channels.

    Args:
        positions: ``(...)``, any numbers.
        dim: channels, even.
        timing: the last wave is 10,000 times as long as the first, as in tensor2tensor, fairseq and
            Whisper; in the paper it would be the next one.

    Returns:
        ``(..., dim)`` in float32.
    """
    wave = torch.arange(dim // 2, device=positions.device)
    if timing:
        # In float32 and in this order, to round as the published code does: far places differ by 1e-4.
        frequency = torch.exp(wave.float() * -(math.log(10_000) / max(1, dim // 2 - 1)))
        angles = positions.unsqueeze(-1).float() * frequency
    else:
        angles = positions.unsqueeze(-1).double() * torch.pow(10_000.0, -wave.double() / (dim / 2))
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


def axial_sinusoidal(coordinates: Tensor, dim: int) -> Tensor:
    """:func:`sinusoidal` of each coordinate, in an equal share of the channels one after another.

    Args:
        coordinates: ``(..., axes)``.
        dim: channels, a multiple of ``2 * axes``.

    Returns:
        ``(..., dim)`` in float32.
    """
    return sinusoidal(coordinates, dim // coordinates.shape[-1]).flatten(-2)


class SinusoidalPosition(nn.Module):
    """A table of :func:`sinusoidal` positions, added to embeddings.

    Args:
        first: the number of the first position.
        stored: the table is part of a checkpoint, whatever it holds (Whisper); it learns nothing.
    """

    def __init__(
        self,
        max_tokens: int,
        dim: int,
        timing: bool = False,
        first: int = 0,
        stored: bool = False,
    ) -> None:
        super().__init__()
        self.waves = (max_tokens, dim, timing, first)
        self.stored = stored
        self.register_buffer("table", self._table(), persistent=stored)
        self.table: Tensor

    def _table(self) -> Tensor:
        max_tokens, dim, timing, first = self.waves
        return sinusoidal(first + torch.arange(max_tokens), dim, timing)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SinusoidalPosition:
        """As any module; but a model that was bfloat16 and is float32 again has the exact table."""
        super()._apply(fn, recurse)
        if not self.stored:
            self.table = self._table().to(self.table)
        return self

    def forward(self, positions: Tensor) -> Tensor:
        """``(...) -> (..., dim)``."""
        return self.table[positions]


class LearnedPosition(nn.Embedding):
    """A learned vector for each position, added to embeddings (GPT-2, BERT)."""


def make_position(
    config: TransformerConfig, dim: int, first: int = 0, std: float = 0.02, stored: bool = False
) -> nn.Module | None:
    """The table that ``config.position`` asks for, of ``max_tokens`` rows; None if none is added.

    Args:
        dim: its width.
        first, stored: of a table of waves, see :class:`SinusoidalPosition`.
        std: of a learned table at the start.
    """
    if config.position in ("sinusoidal", "timing"):
        timing = config.position == "timing"
        return SinusoidalPosition(config.max_tokens, dim, timing, first, stored)
    if config.position != "learned":
        return None
    table = LearnedPosition(config.max_tokens, dim)
    nn.init.normal_(table.weight, std=std)
    return table


def grid_coordinates(rows: int, columns: int, device: torch.device) -> Tensor:
    """``(rows * columns, 2)``: row and column of each patch, row by row."""
    axes = torch.arange(rows, device=device), torch.arange(columns, device=device)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)


def centre_coordinates(rows: int, columns: int, device: torch.device) -> Tensor:
    """``(rows * columns, 2)``: the middle of each patch, in -1..1 down and across, times 2 pi."""
    axes = [
        2 * math.pi * (2 * (torch.arange(side, device=device).float() + 0.5) / side - 1)
        for side in (rows, columns)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)
