"""Rows that are spread over several processes, seen by all of them, with their gradient.

A loss over the whole batch returns its own rows' part, scaled so that the mean over processes is the
loss of the whole batch: ``DistributedDataParallel`` averages gradients, which makes them equal to those
of one process with the whole batch. Every process must call it equally often.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def normalised(x: Tensor) -> Tensor:
    """``(rows, dim)`` of length 1, in float32 at least."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def over_processes(x: Tensor) -> Tensor:
    """The sum of all processes; every process must call it equally often."""
    if dist.is_available() and dist.is_initialized():
        x = x.clone()
        dist.all_reduce(x)
    return x


def rows_of_processes(x: Tensor) -> tuple[list[int], int]:
    """How many rows each process holds, and which of all rows is the first of this one."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [len(x)], 0
    mine = torch.tensor([len(x)], device=x.device)
    counts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, mine)
    rows = [int(count) for count in counts]
    return rows, sum(rows[: dist.get_rank()])


def gather_rows(x: Tensor, counts: list[int]) -> Tensor:
    """The rows ``(all rows, dim)`` of every process, in the order of processes, with gradient."""
    if len(counts) == 1:
        return x
    longest = max(counts)  # collectives want equal shapes
    padded = F.pad(x, (0, 0, 0, longest - len(x)))
    parts: tuple[Tensor, ...] = GatherRows.apply(padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class GatherRows(torch.autograd.Function):
    """``all_gather`` whose gradient is the sum of what every process has for these rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = torch.stack(gradients)
        dist.all_reduce(summed)
        return summed[dist.get_rank()]
