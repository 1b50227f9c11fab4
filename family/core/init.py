"""The parts of a block, made and begun; for stacks of one's own too."""

from __future__ import annotations

import math

from torch import nn

from family.core.config import TransformerConfig
from family.core.functions import NORMS


def make_norm(
    config: TransformerConfig, dim: int | None = None, name: str | None = None, affine: bool = True
) -> nn.Module:
    """A norm over the last dimension: ``(..., dim) -> (..., dim)``.

    Args:
        dim, name: None is the config's.
        affine: with a learned factor, and for layer norm a bias where the config says so.
    """
    norm = NORMS[name or config.norm]
    options = {"bias": config.norm_bias} if norm is nn.LayerNorm else {}
    return norm(dim or config.dim, eps=config.norm_eps, elementwise_affine=affine, **options)


def fused(dim: int, out_dim: int, bias: bool, parts: int) -> nn.Linear:
    """A linear layer whose weight holds so many projections of one size, one below the other, to be
    initialised and (by Muon) stepped one by one: its ``parts``."""
    layer = nn.Linear(dim, out_dim, bias)
    layer.parts = parts  # type: ignore[assignment]
    return layer


def init_linear(layer: nn.Linear, std: float | None = 0.02) -> None:
    """Normal as GPT-2, or for None Xavier uniform, part by part, as the 2017 model; biases zero."""
    if std is not None:
        nn.init.normal_(layer.weight, std=std)
    else:
        for part in layer.weight.detach().chunk(getattr(layer, "parts", 1)):
            nn.init.xavier_uniform_(part)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def initialise(module: nn.Module, std: float | None = 0.02, *, scaled: bool = False) -> None:
    """Begin all linear layers in a module as :func:`init_linear` does.

    What shifts, scales and gates branches by a condition begins at zero (DiT, section 3.2).

    Args:
        std: None is Xavier uniform.
        scaled: the last layers of each residual branch, ``out`` of attention and ``down`` of a
            feed-forward, are smaller by the root of their number (GPT-2, section 2.3).
    """
    branches = [part for part in module.modules() if hasattr(part, "sublayer")]
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            init_linear(layer, std)
    for branch in branches:
        if isinstance(branch.modulation, nn.Linear):
            init_linear(branch.modulation, 0.0)
        if scaled and std is not None:
            for name, layer in branch.sublayer.named_modules():  # type: ignore[union-attr]
                if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in ("out", "down"):
                    nn.init.normal_(layer.weight, std=std / math.sqrt(len(branches)))
