"""Head and cross-entropy together: the logits over a vocabulary are never whole in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from family.core.functions import soft_cap
from family.losses.language_model import IGNORE, language_model_loss

PART_ON_CPU, PART = 2**21, 2**27
"""Logits that are worked out in one go."""
FEWEST = 128
"""Rows that are, however large the vocabulary: products of fewer leave a processor idle."""


@dataclass(frozen=True)
class TokenLoss:
    """The mean cross-entropy over the tokens whose label is not ``IGNORE``, of none zero.

    A model that is asked for its loss gets one in the place of being asked for logits, and calls it with its
    head and what that reads. Where there are many logits they are worked out some rows at a time, and the
    gradients with them (as in Liger Kernel, Hsu et al. 2024); these have no gradients of their own then.

    Args:
        labels: one for each vector that the head reads, ``(batch, tokens)`` or ``(rows,)``.
        label_smoothing: mass spread evenly over the vocabulary (Szegedy et al. 2016).
        z_loss: weight of the square of the logarithm of what softmax divides by, which keeps logits
            small (PaLM, Chowdhery et al. 2022, section 5: 1e-4).
    """

    labels: Tensor
    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def __call__(self, head: Any, features: Tensor, cap: float | None = None) -> Tensor:
        """The loss.

        Args:
            head: ``(..., dim) -> (..., vocab)``.
            features: ``(..., dim)``, as many as there are labels.
            cap: logits are bent to stay under it, see :func:`~family.core.functions.soft_cap`.
        """
        features, labels = features.flatten(0, -2), self.labels.flatten()
        counted = labels != IGNORE
        part = PART_ON_CPU if features.is_cpu else PART
        if not is_plain(head) or len(labels) * head.out_features <= part:
            total = self.of_logits(head(features), labels, cap)
        else:
            if features.is_cpu and not bool(counted.all()):
                features, labels = features[counted], labels[counted]
            fused = torch.compiler.is_compiling() and features.is_cuda
            total = in_parts(head, features, labels, self, cap, part, fused)
        return total / counted.sum().clamp(min=1)

    def of(self, logits: Tensor) -> Tensor:
        """The loss, of logits ``(..., vocab)`` that are there."""
        labels = self.labels.flatten()
        return self.of_logits(logits.flatten(0, -2), labels) / (labels != IGNORE).sum().clamp(min=1)

    def of_logits(self, logits: Tensor, labels: Tensor, cap: float | None = None) -> Tensor:
        """The sum over labels ``(rows,)``, of logits ``(rows, vocab)`` that are there."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits = logits if cap is None else soft_cap(logits, cap)
        total = language_model_loss(logits[None], labels[None], self.label_smoothing, "sum")
        if self.z_loss:
            squares = logits.logsumexp(-1).square() * (labels != IGNORE)
            total = total + self.z_loss * squares.sum()
        return total


def is_plain(head: Any) -> bool:
    """Whether a head is an ordinary linear layer, without adapters, hooks or a weight that is more than a
    tensor (sharded, quantised)."""
    return (
        (type(head) is nn.Linear or hasattr(head, "product"))
        and not (head._forward_hooks or head._forward_pre_hooks)
        and type(head.weight) in (Tensor, nn.Parameter)
    )


@torch.compiler.disable  # of a compiled model the last step: what it does in place is fast as it is
def in_parts(
    head: Any,
    features: Tensor,
    labels: Tensor,
    loss: TokenLoss,
    cap: float | None,
    part: int,
    fused: bool = False,
) -> Tensor:
    """What :meth:`TokenLoss.of_logits` gives of a head's logits, so many of them at a time; ``fused`` by kernels
    that are compiled."""
    rows = max(FEWEST, part // head.out_features)
    product = getattr(head, "product", F.linear)
    given = (features, head.weight, head.bias)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given):
        total: Tensor = InParts.apply(*given, labels, loss, cap, rows, product, fused)
        return total
    pairs = zip(features.split(rows), labels.split(rows), strict=True)
    sums = [loss.of_logits(head(some), wanted, cap) for some, wanted in pairs]
    return torch.stack(sums).sum() if sums else features.sum() * 0


class InParts(torch.autograd.Function):
    """The sum of the losses, and gradients that are worked out on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        loss: TokenLoss,
        cap: float | None,
        rows: int,
        product: Callable[..., Tensor],
        fused: bool,
    ) -> Tensor:
        device, needed = features.device.type, ctx.needs_input_grad
        under = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if under else features.dtype
        exact = torch.promote_types(dtype, torch.float32)
        matrix, shift = weight.to(dtype), None if bias is None else bias.to(dtype)
        total = features.new_zeros((), dtype=exact)
        of_features = torch.empty_like(features, dtype=dtype) if needed[0] else None
        of_weight = torch.zeros_like(weight, dtype=exact) if needed[1] else None
        of_bias = torch.zeros_like(bias, dtype=exact) if bias is not None and needed[2] else None
        asked = loss.label_smoothing, loss.z_loss, cap
        slope_of = fused_slope() if fused else with_slope
        with torch.autocast(device, enabled=False):
            for begin in range(0, len(labels), rows):
                place = slice(begin, begin + rows)
                some = features[place].to(dtype)
                logits = product(some, matrix, shift)
                found, slope, shifts = slope_of(logits, labels[place], *asked, of_bias is not None)
                total += found
                if of_bias is not None and shifts is not None:
                    of_bias += shifts
                if of_features is not None:
                    of_features[place] = product(slope, matrix.t())
                if of_weight is None:
                    continue
                if dtype == exact and product is F.linear:
                    of_weight.addmm_(slope.t(), some)
                else:
                    of_weight += product(slope.t(), some.t())
        ctx.save_for_backward(of_features, of_weight, of_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> Any:
        # In place, as they are large: a second way back is refused by PyTorch, which counts changes.
        scaled = [None if x is None else x.mul_(factor) for x in ctx.saved_tensors]
        return (*scaled, None, None, None, None, None, None)


def with_slope(
    logits: Tensor,
    labels: Tensor,
    label_smoothing: float,
    z_loss: float,
    cap: float | None,
    of_bias: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The sum of the losses of some rows, its gradient by the logits ``(rows, vocab)``, in their precision, and by
    the head's bias."""
    dtype, bent = logits.dtype, None
    logits = logits.to(torch.promote_types(dtype, torch.float32))
    if cap is not None:
        bent = torch.tanh(logits / cap)
        logits = cap * bent
    counted = labels != IGNORE
    places = labels.where(counted, 0)[:, None]
    weight, spread = 1 - label_smoothing, label_smoothing
    given = logits.gather(1, places)
    logs = logits.log_softmax(-1)
    likely = logs.gather(1, places)
    each = -weight * likely
    if spread:
        each -= spread * logs.mean(-1, keepdim=True)
    share = counted[:, None].to(logs.dtype)
    slope, factor = logs.exp_(), share
    if z_loss:
        divided = given - likely  # the logarithm of what softmax divides by
        each += z_loss * divided.square()
        factor = share * (1 + 2 * z_loss * divided)
    # Whether all are counted a GPU would have to be waited for.
    if z_loss or not labels.is_cpu or not bool(counted.all()):
        slope *= factor
    slope.scatter_add_(1, places, -weight * share)
    if spread:
        slope -= share * (spread / logits.shape[1])
    if bent is not None:
        slope *= 1 - bent.square()
    return (each * share).sum(), slope.to(dtype), slope.sum(0) if of_bias else None


@cache
def fused_slope() -> Callable[..., tuple[Tensor, Tensor, Tensor | None]]:
    """:func:`with_slope`, in which a GPU reads the logits as few times as can be."""
    return torch.compile(with_slope)
