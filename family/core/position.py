"""Positions that enter on scores; on queries and keys: ``rotary.py``."""

from __future__ import annotations

import math

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
        # A geometric sequence; between powers of two, every other one of the next sequence.
        power = 2 ** math.floor(math.log2(heads))
        slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
        slopes += [2 ** (-4 * (i + 1) / power) for i in range(0, 2 * (heads - power), 2)]
        self.register_buffer("slopes", torch.tensor(slopes), persistent=False)
        self.slopes: Tensor

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Positions ``(..., queries)`` and ``(..., keys)`` to a bias ``(..., heads, queries, keys)``."""
        distance = (keys.unsqueeze(-2) - queries.unsqueeze(-1)).abs()
        return -distance.unsqueeze(-3) * self.slopes[:, None, None]
