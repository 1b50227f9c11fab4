"""What a class was told from: attention times its gradient, rolled out (Chefer et al. 2021, "Generic
Attention-model Explainability", section 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from family.look.maps import check_square, identity, recorded_maps, stacks_of


def relevance(model: Any, *inputs: Any, target: Tensor | int | None = None, **named: Any) -> Tensor:
    """How much each token speaks for a class, ``(batch, tokens)``, none of them below 0.

    From the identity ``R``, each layer adds ``mean over heads of (A * dy/dA)+`` times ``R``. The rows that
    the classes are told from say what is relevant: that of the class token, or, where tokens are averaged,
    the mean of theirs. What a row says of itself by the residual path alone is taken off.

    Args:
        model: classifies: its logits are ``(batch, classes)``.
        inputs, named: what it is called with; tokens are those of its last stack, padding included.
        target: the class, or one a row ``(batch)``; None is the likeliest of each.

    Raises:
        ValueError: no classifier, or one without attention.
    """
    return relevances(model, lambda: model(*inputs, **named), target)


def relevances(model: Any, call: Callable[[], Tensor], target: Tensor | int | None) -> Tensor:
    """:func:`relevance` of any call that gives logits."""
    stacks = stacks_of(model)
    if not stacks:
        raise ValueError(f"a {type(model).__name__} has no stack whose maps could be rolled out.")
    name, stack = list(stacks.items())[-1]
    left: list[Tensor] = []
    hooks = [
        # So that there are gradients where no weight of the model learns, and none of its weights.
        stack.register_forward_pre_hook(lambda _, given: (given[0].detach().requires_grad_(),)),
        stack.register_forward_hook(lambda _, given, made: left.append(made)),
    ]
    try:
        maps, logits = recorded_maps(model, call, gradients=True)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(logits, Tensor) or logits.dim() != 2 or not logits.requires_grad:
        raise ValueError(f"a {type(model).__name__} gives no classes of the whole: see its task.")
    chosen = logits.argmax(-1) if target is None else torch.as_tensor(target, device=logits.device)
    kept = [one for one in maps[name].own if one is not None]
    wanted = logits.gather(1, chosen.expand(len(logits))[:, None]).sum()
    *slopes, at_end = torch.autograd.grad(wanted, [*kept, left[-1]])
    return read_rows(rolled_out(kept, slopes), at_end)


def rolled_out(maps: list[Tensor], slopes: list[Tensor]) -> Tensor:
    """``R`` ``(batch, tokens, tokens)`` of maps and their gradients ``(batch, heads, tokens, tokens)``."""
    found = identity(maps[0]).expand(len(maps[0]), -1, -1)
    for one, slope in zip(maps, slopes, strict=True):
        check_square(one)
        found = found + (one.detach() * slope).clamp(min=0).mean(1) @ found
    return found


def read_rows(found: Tensor, slope: Tensor) -> Tensor:
    """The mean of the rows that the classes are told from: those whose vectors they depend on.

    Args:
        found: ``(batch, tokens, tokens)``.
        slope: of the class by what the stack gives, ``(batch, tokens, dim)``.
    """
    read = (slope.abs().sum(-1) > 0).to(found.dtype)
    rows = found - identity(found)
    return (read[:, None] @ rows)[:, 0] / read.sum(-1, keepdim=True).clamp(min=1)
