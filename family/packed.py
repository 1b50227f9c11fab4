"""Products with weights that are laid out once as the processor reads them fastest (oneDNN's blocks)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from family.accelerate import PRODUCT

library = torch.library.Library("transformer_family", "DEF")
library.define("packed_linear(Tensor input, Tensor weight, Tensor? bias) -> Tensor")
packs = WeakTensorKeyDictionary()


def forget() -> None:
    """Lay the weights out anew, as they are then, when they are used next."""
    packs.clear()


def packed_linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As ``F.linear`` of float32 or bfloat16 on the CPU; of the weight as it was when it was used first since :func:`forget`.

    Args:
        input: ``(..., in)``.
        weight: ``(out, in)``; its copy in blocks is kept as long as it is.
    """
    pack = packs.get(weight)
    if pack is None:
        rows = input.numel() // input.shape[-1]
        pack = packs[weight] = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return PRODUCT(input, pack, bias, "none", [], "")


def shape_of(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return input.new_empty(*input.shape[:-1], len(weight))


library.impl("packed_linear", packed_linear, "CPU")
torch.library.register_fake("transformer_family::packed_linear", shape_of, lib=library)
