"""The norms, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

NORMS: dict[str, Callable[..., nn.Module]] = {"layernorm": nn.LayerNorm, "rmsnorm": nn.RMSNorm}


def make_norm(name: str, dim: int, eps: float) -> nn.Module:
    """A norm over the last dimension: ``(..., dim) -> (..., dim)``."""
    return NORMS[name](dim, eps=eps)
