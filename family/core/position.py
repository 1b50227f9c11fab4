"""Where position enters: on embeddings, on queries and keys, or on scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

Scaling = float | tuple[float, float, float, float] | None


def sinusoidal(positions: Tensor, dim: int) -> Tensor:
    """Sine and cosine waves of geometrically growing length (Vaswani et al. 2017, section 3.5).

    Sines fill the first half of the channels and cosines the second, as in the authors' own code
    (tensor2tensor) and in Marian; the paper interleaves them, a fixed permutation of channels.

    Args:
        positions: ``(...)``, any numbers.
        dim: channels, even.

    Returns:
        ``(..., dim)`` in float32.
    """
    frequency = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float64) / dim
    angles = positions.unsqueeze(-1).double() * torch.pow(10_000.0, -frequency)
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
    """A table of :func:`sinusoidal` positions, added to embeddings."""

    def __init__(self, max_tokens: int, dim: int) -> None:
        super().__init__()
        table = sinusoidal(torch.arange(max_tokens), dim)
        self.register_buffer("table", table, persistent=False)
        self.table: Tensor

    def forward(self, positions: Tensor) -> Tensor:
        """``(...) -> (..., dim)``."""
        return self.table[positions]


class LearnedPosition(nn.Embedding):
    """A learned vector for each position, added to embeddings (GPT-2, BERT)."""


class Rotary(nn.Module):
    """Rotary positions: queries and keys turn by an angle that grows with position (Su et al. 2021).

    Channel ``i`` turns together with channel ``i + dim / 2``, the layout of GPT-NeoX and of Llama in
    transformers. Over several axes, each axis turns an equal share of these pairs by a coordinate of
    its own (axial rotary, Heo et al. 2024), in the layout of DINOv3.

    Args:
        dim: channels that turn, the first of each head.
        base, scaling: see :func:`rotary_frequency`.
        axes: coordinates of a token.
    """

    def __init__(
        self, dim: int, base: float = 10_000.0, axes: int = 1, scaling: Scaling = None
    ) -> None:
        super().__init__()
        self.axes = axes
        self._frequency = partial(rotary_frequency, dim // axes, base, scaling)
        self.register_buffer("frequency", self._frequency(), persistent=False)
        self.frequency: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rotary:
        """Moves to a device as any module, but stays exact where the model becomes bfloat16."""
        super()._apply(fn, recurse)
        self.frequency = self._frequency().to(self.frequency.device)
        return self

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine for positions ``(tokens)`` or ``(batch, tokens)``.

        Args:
            positions: with several axes ``(tokens, axes)`` or ``(batch, tokens, axes)``.

        Returns:
            two tensors that broadcast with ``(batch, heads, tokens, dim)``.

        Raises:
            ValueError: the last dimension of ``positions`` is not that of the axes.
        """
        if self.axes == 1:
            positions = positions.unsqueeze(-1)
        elif positions.shape[-1] != self.axes:
            raise ValueError(
                f"rotary_axes={self.axes} needs positions (..., tokens, {self.axes}), "
                f"not {tuple(positions.shape)}."
            )
        # Angles in float32 at least: in bf16 positions past 256 would fall together.
        working = torch.promote_types(dtype, torch.float32)
        angles = positions.unsqueeze(-1).to(working) * self.frequency.to(working)
        angles = torch.cat([angles.flatten(-2)] * 2, dim=-1)
        if angles.dim() == 3:
            angles = angles.unsqueeze(1)
        return angles.cos().to(dtype), angles.sin().to(dtype)


def apply_rotary(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn ``(batch, heads, tokens, head_dim)`` by the angles that :class:`Rotary` returned.

    Where these are fewer than ``head_dim``, the channels behind them stay as they are.
    """
    cos, sin = rotary
    turning = cos.shape[-1]
    if turning < x.shape[-1]:
        return torch.cat([apply_rotary(x[..., :turning], rotary), x[..., turning:]], dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def rotary_frequency(dim: int, base: float = 10_000.0, scaling: Scaling = None) -> Tensor:
    """Radians a position for each pair of channels, ``(dim / 2)`` in float32, fast ones first.

    Args:
        scaling: None; a factor that divides all (position interpolation, Chen et al. 2023); or
            ``(factor, low, high, tokens)`` of Llama 3.1: pairs that turn fewer than ``low`` times
            in ``tokens``, the context of pre-training, are divided by the factor, those that turn
            more than ``high`` times stay, and those between are mixed.
    """
    frequency = 1.0 / float(base) ** (torch.arange(0, dim, 2).float() / dim)
    if not isinstance(scaling, tuple):
        return frequency if scaling is None else frequency / scaling
    factor, low, high, tokens = scaling
    turns = tokens / (2 * math.pi / frequency)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequency / factor + kept * frequency


class RelativeBias(nn.Module):
    """T5's learned bias on scores by bucketed distance (Raffel et al. 2020, section 2.1)."""

    def __init__(self, heads: int, buckets: int, max_distance: int, bidirectional: bool) -> None:
        super().__init__()
        self.buckets, self.max_distance, self.bidirectional = buckets, max_distance, bidirectional
        self.table = nn.Embedding(buckets, heads)

    def bucket(self, distance: Tensor) -> Tensor:
        """The bucket of ``distance = key position - query position``: near ones singly, far ones by log."""
        buckets, offset = self.buckets, torch.zeros_like(distance)
        if self.bidirectional:
            buckets //= 2
            offset = (distance > 0).long() * buckets
            distance = distance.abs()
        else:
            distance = (-distance).clamp(min=0)
        exact = buckets // 2
        ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(
            self.max_distance / exact
        )
        far = (exact + (ratio * (buckets - exact)).long()).clamp(max=buckets - 1)
        return offset + torch.where(distance < exact, distance, far)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions ``(..., queries)`` and ``(..., keys)`` to a bias ``(..., heads, queries, keys)``."""
        distance = keys.unsqueeze(-2) - queries.unsqueeze(-1)
        return self.table(self.bucket(distance)).movedim(-1, -3)


class AlibiBias(nn.Module):
    """A fixed penalty on scores, linear in distance, one slope a head (Press et al. 2022)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("slopes", alibi_slopes(heads), persistent=False)
        self.slopes: Tensor

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions ``(..., queries)`` and ``(..., keys)`` to a bias ``(..., heads, queries, keys)``."""
        distance = (keys.unsqueeze(-2) - queries.unsqueeze(-1)).abs()
        return -distance.unsqueeze(-3) * self.slopes[:, None, None]


def alibi_slopes(heads: int) -> Tensor:
    """A geometric sequence of slopes; between powers of two, every other one of the next sequence."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-4 * (i + 1) / power) for i in range(0, 2 * (heads - power), 2)]
    return torch.tensor(slopes)
