"""Activations and norms, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def quick_gelu(x: Tensor) -> Tensor:
    """The sigmoid approximation of GELU that CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """Scores or logits, bent to stay under ``cap`` (Gemma 2, section 2)."""
    return cap * torch.tanh(x / cap)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": quick_gelu,
    "silu": F.silu,
}


class OffsetRMSNorm(nn.RMSNorm):
    """RMSNorm by ``1 + weight``, computed in float32 at least (Gemma)."""

    def reset_parameters(self) -> None:
        if self.elementwise_affine:
            nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        working = torch.promote_types(x.dtype, torch.float32)
        weight = self.weight.to(working) + 1 if self.elementwise_affine else None
        return F.rms_norm(x.to(working), self.normalized_shape, weight, self.eps).to(x.dtype)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "layernorm": nn.LayerNorm,
    "rmsnorm": nn.RMSNorm,
    "offset_rmsnorm": OffsetRMSNorm,
}
