"""How the linear layers of a stack begin, for stacks of one's own too."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def fused(dim: int, out_dim: int, bias: bool, parts: int) -> nn.Linear:
    """A linear layer whose weight holds so many projections of one size, one below the other, to be
    initialised and (by Muon) stepped one by one: its ``parts``."""
    layer = nn.Linear(dim, out_dim, bias)
    layer.parts = parts  # type: ignore[assignment]
    return layer


def init_linear(layer: nn.Linear, std: float | None = 0.02) -> None:
    """Normal as GPT-2, or for None Xavier uniform, part by part, as the 2017 model; biases zero."""
    if std is None:
        with torch.no_grad():
            for part in layer.weight.chunk(getattr(layer, "parts", 1)):
                nn.init.xavier_uniform_(part)
    else:
        nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def initialise(module: nn.Module, std: float | None = 0.02, *, scaled: bool = False) -> None:
    """Begin all linear layers in a module as :func:`init_linear` does.

    What shifts, scales and gates branches by a condition begins at zero (DiT, section 3.2).

    Args:
        std: None is Xavier uniform.
        scaled: the last layer of each residual branch is smaller by the root of their number, as in
            GPT-2 (Radford et al. 2019, section 2.3).
    """
    branches: list[nn.Module] = []
    for part in module.modules():
        if isinstance(part, nn.Linear):
            init_linear(part, std)
        if hasattr(part, "sublayer"):
            branches.append(part)
    for branch in branches:
        modulation = getattr(branch, "modulation", None)
        if modulation is not None:
            init_linear(modulation, 0.0)
        if scaled and std is not None:
            for last in last_layers(branch.sublayer):  # type: ignore[arg-type]
                nn.init.normal_(last, std=std / math.sqrt(len(branches)))


def last_layers(sublayer: nn.Module) -> list[Tensor]:
    """The weights that write what a sublayer adds: ``out`` of attention, ``down`` of a feed-forward."""
    found = [getattr(m, name, None) for m in sublayer.modules() for name in ("out", "down")]
    return [layer.weight for layer in found if isinstance(layer, nn.Linear)]
