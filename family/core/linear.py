"""Linear layers. On the CPU not every product is best left to PyTorch's choice of library."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

WORTH, WORTH_TRAINING = 2**17, 2**22
"""Multiplications below which the calls of oneDNN take longer than what they save."""


class Linear(nn.Linear):
    """``nn.Linear``, computed by :func:`linear`.

    Args:
        parts: projections of one size that the weight holds one below the other, to be initialised
            and (by Muon) stepped one by one.
        options: ``device`` and ``dtype``.
    """

    def __init__(
        self, dim: int, out_dim: int, bias: bool = True, *, parts: int = 1, **options: Any
    ) -> None:
        super().__init__(dim, out_dim, bias, **options)
        self.parts = parts

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, ``(..., in)`` and ``(out, in)`` to ``(..., out)``; as ``F.linear``.

    Two kinds of float32 product on the CPU are faster another way: all on AMD's processors, where MKL uses
    half the width of a register and oneDNN all of it; and one row in a compiled step (decoding),
    which as a sum of products reads the weights at the full speed of the memory.
    """
    if not is_plain(x, weight):
        return F.linear(x, weight, bias)
    if torch.compiler.is_compiling():
        if x.numel() > x.shape[-1]:
            return F.linear(x, weight, bias)
        row = (x.reshape(-1) * weight).sum(-1)
        return (row if bias is None else row + bias).view(*x.shape[:-1], -1)
    training = torch.is_grad_enabled()
    if not MKL_IS_SLOW or x.numel() * len(weight) < (WORTH_TRAINING if training else WORTH):
        return F.linear(x, weight, bias)
    return OneDNN.apply(x, weight, bias) if training else onednn(x, weight, bias)


def is_plain(x: Tensor, weight: Tensor) -> bool:
    """Whether this is a product in float32 on the CPU, which no exported file is to hold."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()
    )


def mkl_is_slow() -> bool:
    """Whether this is a processor of AMD with AVX-512, and oneDNN is there."""
    if not (torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    listed = Path("/proc/cpuinfo")
    processor = listed.read_text() if listed.exists() else platform.processor()
    return "AuthenticAMD" in processor and torch.backends.cpu.get_cpu_capability() == "AVX512"


MKL_IS_SLOW = mkl_is_slow()


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``(..., in)`` and ``(out, in)`` to ``(..., out)``."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class OneDNN(torch.autograd.Function):
    """The product by oneDNN with gradients, which PyTorch's operator lacks."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return onednn(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        grad, x = grads[0].reshape(-1, len(weight)), x.reshape(-1, weight.shape[1])
        grad_x = grad_weight = None
        if for_x:
            grad_x = linear(grads[0], weight.t())
        if for_weight and len(weight) <= weight.shape[1]:
            grad_weight = linear(grad.t(), x.t())
        elif for_weight:  # oneDNN is faster where the result is wide
            grad_weight = linear(x.t(), grad.t()).t()
        return grad_x, grad_weight, grad.sum(0) if for_bias else None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        (x, weight), (of_x, of_weight, of_bias) = ctx.saved_tensors, tangents
        change = x.new_zeros(*x.shape[:-1], len(weight)) if of_bias is None else of_bias
        if of_x is not None:
            change = change + linear(of_x, weight)
        return change if of_weight is None else change + linear(x, of_weight)


def count_flops(x: tuple[int, ...], weight: tuple[int, ...], *_: Any, **__: Any) -> int:
    return 2 * torch.Size(x).numel() * weight[0]


if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    # So that PyTorch's FlopCounterMode sees these products.
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(count_flops)
