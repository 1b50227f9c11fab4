"""Positions that enter on scores; on queries and keys: ``rotary.py``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


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
        self.heads = heads
        self.register_buffer("slopes", self._slopes(), persistent=False)
        self.slopes: Tensor

    def _slopes(self) -> Tensor:
        # A geometric sequence; between powers of two, every other one of the next sequence.
        heads, power = self.heads, 2 ** math.floor(math.log2(self.heads))
        slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
        slopes += [2 ** (-4 * (i + 1) / power) for i in range(0, 2 * (heads - power), 2)]
        return torch.tensor(slopes)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AlibiBias:
        """As any module; but a model that was bfloat16 and is float32 again has the exact slopes."""
        super()._apply(fn, recurse)
        self.slopes = self._slopes().to(self.slopes)
        return self

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions ``(..., queries)`` and ``(..., keys)`` to a bias ``(..., heads, queries, keys)``."""
        distance = (keys.unsqueeze(-2) - queries.unsqueeze(-1)).abs()
        return -distance.unsqueeze(-3) * self.slopes[:, None, None]
