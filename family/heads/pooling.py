"""One vector for a sequence."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def pool_first(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The first real token, ``(batch, tokens, dim) -> (batch, dim)``.

    Args:
        mask: ``(batch, tokens)``, True = a token; None, or padding on the right, is column 0.
    """
    if mask is None:
        return x[:, 0]
    return x[torch.arange(x.shape[0], device=x.device), mask.long().argmax(1)]


def pool_end(
    x: Tensor, input_ids: Tensor, mask: Tensor | None = None, eos_id: int | None = None
) -> Tensor:
    """The vector at the end of each text (Radford et al. 2021, section 2.4).

    That is its first ``eos_id``; in a row without one (cut off, say), or where ``eos_id`` is None,
    the last token that ``mask`` leaves.

    Args:
        x: ``(batch, tokens, dim)``.
        input_ids: ``(batch, tokens)``.
        mask: ``(batch, tokens)``, True = a token.

    Returns:
        ``(batch, dim)``.
    """
    real = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask
    columns = torch.arange(input_ids.shape[1], device=x.device)
    end = (real * columns).amax(1)
    if eos_id is not None:
        found = real & (input_ids == eos_id)
        end = torch.where(found.any(1), found.long().argmax(1), end)
    return x[torch.arange(x.shape[0], device=x.device), end]


def pool_mean(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean over real tokens, ``(batch, tokens, dim) -> (batch, dim)``; of no tokens, zeros.

    Args:
        mask: ``(batch, tokens)``, True = a token.
    """
    if mask is None:
        return x.mean(1)
    # In float32 at least: the sum over a long text may be more than float16 can hold.
    working = torch.promote_types(x.dtype, torch.float32)
    weights = mask.to(working).unsqueeze(-1)
    return ((x * weights).sum(1) / weights.sum(1).clamp(min=1)).to(x.dtype)


def pool_max(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The largest value of each channel, ``(batch, tokens, dim) -> (batch, dim)``; of no tokens, zeros.

    Args:
        mask: ``(batch, tokens)``, True = a token.
    """
    if mask is None:
        return x.amax(1)
    largest = x.masked_fill(~mask.unsqueeze(-1), -math.inf).amax(1)
    return largest.masked_fill(~mask.any(1, keepdim=True), 0.0)


POOLINGS = {"mean": pool_mean, "class": pool_first, "max": pool_max}
"""Tokens ``(batch, tokens, dim)`` and mask -> ``(batch, dim)``."""
