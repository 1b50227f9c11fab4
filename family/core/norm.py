"""The norms, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


def make_norm(name: str, dim: int, eps: float, bias: bool = True, affine: bool = True) -> nn.Module:
    """A norm over the last dimension: ``(..., dim) -> (..., dim)``.

    Args:
        bias: of layer norm; the others have none.
        affine: with a learned factor (and bias).
    """
    make = NORMS[name]
    if make is nn.LayerNorm:
        make = partial(make, bias=bias)
    return make(dim, eps=eps, elementwise_affine=affine)
