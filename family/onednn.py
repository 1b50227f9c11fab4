"""Products by oneDNN, and with weights that are laid out once as it reads them fastest."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import flop_registry, register_flop_formula
from torch.utils.weak import WeakTensorKeyDictionary

OPERATOR: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
"""A product by oneDNN; None in a PyTorch without it."""
PRODUCT: Any = getattr(OPERATOR, "default", None)
"""It, called by itself: to choose among overloads takes a tenth of a small product's time."""


@cache
def mkl_is_slow() -> bool:
    """Whether this is a processor of AMD with AVX-512, and oneDNN is there."""
    if OPERATOR is None or not torch.backends.mkl.is_available():
        return False
    try:
        processor = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        processor = platform.processor()
    return "AuthenticAMD" in processor and torch.backends.cpu.get_cpu_capability() == "AVX512"


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``(..., in)`` and ``(out, in)`` to ``(..., out)``."""
    # The operator reads a bias without regard to its strides.
    bias = None if bias is None else bias.contiguous()
    return PRODUCT(x, weight, bias, "none", [], "")


def count_flops(x: tuple[int, ...], weight: tuple[int, ...], *_: Any, **__: Any) -> int:
    return 2 * torch.Size(x).numel() * weight[0]


if OPERATOR is not None and OPERATOR not in flop_registry:
    # So that PyTorch's FlopCounterMode sees these products.
    register_flop_formula(OPERATOR)(count_flops)


# --- For compiled steps: weights in blocks, and in eight bits ---

library = torch.library.Library("transformer_family", "FRAGMENT")
library.define("packed_linear(Tensor input, Tensor weight, Tensor? bias) -> Tensor")
library.define("int8_linear(Tensor input, Tensor weight, Tensor scale, Tensor? bias) -> Tensor")
packs = WeakTensorKeyDictionary()
PIECE = 2**21
"""Numbers, which the caches of a processor hold as they are multiplied: all at once take three times as long."""


def forget() -> None:
    """Lay the weights out anew, as they are then, when they are used next."""
    packs.clear()


def packed_linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As ``F.linear`` of float32 or bfloat16 on the CPU; of the weight as it was at its first use since
    :func:`forget`.

    Args:
        input: ``(..., in)``.
        weight: ``(out, in)``; its copy in blocks is kept as long as it is.
    """
    pack = packs.get(weight)
    if pack is None:
        rows = input.numel() // input.shape[-1]
        pack = packs[weight] = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return onednn(input, pack, bias)


def int8_linear(input: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """As ``F.linear``, of weights ``(out, in)`` int8 that are to be multiplied with ``scale``, ``(out)``. PyTorch's
    compiler writes such a product by a kernel that is slow for float32, and crashes with some sizes."""
    fast = mkl_is_slow() and input.dtype in (torch.float32, torch.bfloat16)
    product = onednn if fast else F.linear
    pieces = weight.split(max(1, PIECE // weight.shape[1]))
    parts = [product(input, piece.to(input.dtype), None) for piece in pieces]
    sums = torch.cat(parts, dim=-1) * scale.to(input.dtype)
    return sums if bias is None else sums + bias


def shape_of(input: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return input.new_empty(*input.shape[:-1], len(weight))


for operator in (packed_linear, int8_linear):
    library.impl(operator.__name__, operator, "CPU")
    torch.library.register_fake(f"transformer_family::{operator.__name__}", shape_of, lib=library)
