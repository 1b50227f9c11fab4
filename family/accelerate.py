"""Faster products for particular processors, put into a model from outside.

On the CPU: attention with few scores as products over the whole batch, and in bfloat16 with gradients by the
kernels of float32; and on AMD's processors with AVX-512 linear layers by oneDNN, as in float32 PyTorch's products
go to MKL, which uses half the width of a register there.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.attention import Attention, attend, attend_eagerly
from family.core.mask import Allowed
from family.onednn import mkl_is_slow, onednn

WORTH, WORTH_WITH_GRADIENTS = 2**17, 2**22
"""Multiplications below which the calls of oneDNN take longer than what they save."""


def accelerate(model: nn.Module) -> nn.Module:
    """Exchange what this processor computes faster another way, in place, and return the model.

    Weights, names, hooks and results stay as they are; :func:`restore` undoes it, for whoever goes by
    the type of layers (quantisation). What runs on a GPU goes on as before.
    """
    for module in model.modules():
        if isinstance(module, Attention) and module.attend is attend:
            module.attend = attend_fast  # type: ignore[assignment]
    if mkl_is_slow():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear
            elif isinstance(module, Attention):
                module.linear = linear  # type: ignore[assignment]
    return model


def restore(model: nn.Module) -> nn.Module:
    """Undo :func:`accelerate`, in place, and return the model."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = nn.Linear  # type: ignore[assignment]
        elif isinstance(module, Attention):
            for name, ours in (("linear", linear), ("attend", attend_fast)):
                if module.__dict__.get(name) is ours:
                    delattr(module, name)
    return model


def attend_fast(
    queries: Tensor, keys: Tensor, values: Tensor, allowed: Allowed, *options: Any
) -> Tensor:
    """:func:`~family.core.attention.attend`, with its further arguments: written out where scores are
    few, and in float32 where that is faster."""
    if not allowed.causal and few_scores(queries, keys):
        return attend_eagerly(queries, keys, values, allowed, *options)[0]
    if not faster_in_float32(queries):
        return attend(queries, keys, values, allowed, *options)
    with torch.autocast("cpu", enabled=False):
        found = attend(queries.float(), keys.float(), values.float(), allowed, *options)
        return found.to(queries.dtype)


def faster_in_float32(queries: Tensor) -> bool:
    """Whether the fused kernel takes longer in bfloat16: on the CPU its way back does, by a third to twice."""
    # A program that is compiled or exported for another device would keep the detour.
    return (
        torch.is_grad_enabled()
        and queries.device.type == "cpu"
        and queries.dtype == torch.bfloat16
        and not torch.compiler.is_compiling()
    )


def few_scores(queries: Tensor, keys: Tensor) -> bool:
    """Whether, decoding on the CPU, products over the whole batch beat the fused kernel: it takes
    some microseconds for each head however few its scores are. In half precision it alone is exact.

    Args:
        queries, keys: ``(batch, heads, tokens, head_dim)``.
    """
    # First of all: a step that is compiled or exported must not depend on the sizes it is made with.
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    batch, heads, count, _ = queries.shape
    return (
        count > 1
        and count * keys.shape[2] <= 2048
        and batch * heads >= 32
        and heads == keys.shape[1]
        and queries.device.type == "cpu"
        and queries.dtype in (torch.float32, torch.float64)
    )


class Linear(nn.Linear):
    """``nn.Linear``, computed by :func:`linear`."""

    @staticmethod
    def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return linear(x, weight, bias)

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, ``(..., in)`` and ``(out, in)`` to ``(..., out)``; as ``F.linear``."""
    with_gradients = torch.is_grad_enabled()
    least = WORTH_WITH_GRADIENTS if with_gradients else WORTH
    if not is_plain(x, weight, bias) or x.numel() * weight.shape[0] < least:
        return F.linear(x, weight, bias)
    return OneDNN.apply(x, weight, bias) if with_gradients else onednn(x, weight, bias)


def is_plain(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are ordinary float32 tensors on the CPU that fit, in ordinary code: all else
    (errors, autocast, tracing, sharded or sparse tensors) is for ``F.linear`` to see."""
    return (
        not torch.compiler.is_compiling()
        and is_ordinary(x)
        and is_ordinary(weight)
        and (bias is None or (is_ordinary(bias) and bias.shape == weight.shape[:1]))
        and weight.dim() == 2
        and x.shape[-1] == weight.shape[1]
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
    )


def is_ordinary(t: Tensor) -> bool:
    return (
        (type(t) is Tensor or type(t) is nn.Parameter)
        and t.is_cpu
        and t.dtype is torch.float32
        and t.layout is torch.strided
    )


class OneDNN(torch.autograd.Function):
    """The product by oneDNN with gradients, which PyTorch's operator lacks."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return onednn(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _ = inputs
        for_x, for_weight, _ = ctx.needs_input_grad
        # What a frozen layer does not need would be kept for nothing.
        ctx.save_for_backward(x if for_weight else None, weight if for_x else None)
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        grad_x = linear(grads[0], weight.t()) if for_x else None
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        grad_weight = None
        if for_weight:
            x = x.reshape(-1, x.shape[-1])
            if grad.shape[1] > x.shape[1]:  # oneDNN is faster where the result is wide
                grad_weight = linear(x.t(), grad.t()).t().contiguous()
            else:
                grad_weight = linear(grad.t(), x.t())
        return grad_x, grad_weight, grad.sum(0) if for_bias else None

    @staticmethod
    def jvp(ctx: Any, of_x: Tensor, of_weight: Tensor, of_bias: Tensor | None) -> Tensor:
        x, weight = ctx.saved_tensors
        change = linear(of_x, weight) + linear(x, of_weight)
        return change if of_bias is None else change + of_bias
