"""Where a model attends: the maps of its stacks, layer by layer, and what they come to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from family.core.attention import Attention
from family.core.transformer import Transformer
from family.look.record import record_attention


@dataclass(frozen=True)
class StackMaps:
    """What the layers of one stack attended to.

    Attributes:
        own: of each layer ``(batch, heads, tokens, tokens)``, a query a row; None where a layer mixes its
            tokens otherwise.
        across: of each layer ``(batch, heads, tokens, context tokens)``; none of a stack without context.
    """

    own: tuple[Tensor | None, ...]
    across: tuple[Tensor | None, ...]


def stacks_of(model: nn.Module) -> dict[str, Transformer]:
    """The stacks within a model by their names, in the order in which it holds them; "" is itself."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Transformer)}


def has_attention(model: nn.Module) -> bool:
    """Whether anything in a model attends, as an LSTM does not."""
    return any(isinstance(module, Attention) for module in model.modules())


def check_attends(model: nn.Module) -> None:
    """Refuse a model in which nothing attends.

    Raises:
        ValueError: see above.
    """
    if not has_attention(model):
        raise ValueError(
            f"nothing in a {type(model).__name__} attends, so there is nothing to look at: give a model with "
            "attention."
        )


def attention_maps(model: nn.Module, *inputs: Any, **named: Any) -> dict[str, StackMaps]:
    """What each stack of a model attended to in one call of it, :func:`stacks_of` by name.

    A row sums to one; one that may attend to nothing, as padding in a row of padding, is zero. Layers of
    one model may have windows, grouped heads or adapters: there is a map of every query head.

    Args:
        inputs, named: what the model is called with.

    Raises:
        ValueError: a model in which nothing attends.
    """
    return recorded_maps(model, lambda: model(*inputs, **named))[0]


def recorded_maps(
    model: nn.Module, call: Callable[[], Any], gradients: bool = False
) -> tuple[dict[str, StackMaps], Any]:
    """As :func:`attention_maps` of any use of a model, and what that gives; of several passes the last.

    Args:
        gradients: see :func:`~family.look.record.record_attention`; without, none are computed.

    Raises:
        ValueError: see :func:`attention_maps`.
    """
    check_attends(model)
    with torch.set_grad_enabled(gradients), record_attention(model, gradients) as kept:
        result = call()
    found = {}
    for name, stack in stacks_of(model).items():
        before = f"{name}." if name else ""
        layers = [f"{before}blocks.{i}" for i in range(len(stack.blocks))]
        own = [last(kept, f"{layer}.self_attention.sublayer") for layer in layers]
        across = [last(kept, f"{layer}.cross_attention.sublayer") for layer in layers]
        found[name] = StackMaps(tuple(own), tuple(across if any_of(across) else ()))
    return found, result


def last(kept: dict[str, list[Tensor]], name: str) -> Tensor | None:
    made = kept.get(name)
    return made[-1] if made else None


def any_of(maps: Sequence[Tensor | None]) -> bool:
    """Whether there is a map among them."""
    return any(one is not None for one in maps)


def rollout(maps: Sequence[Tensor | None], residual: float = 0.5) -> Tensor:
    """How much of each token reaches each place through all layers, as if they did nothing but attend
    (Abnar & Zuidema 2020, section 3): the product of ``(1 - residual) A + residual I``.

    Args:
        maps: of each layer from the first ``(batch, heads, tokens, tokens)``, whose heads count alike;
            None passes tokens on as they are.
        residual: the share of what goes past attention.

    Returns:
        ``(batch, tokens, tokens)``, whose rows sum to one.

    Raises:
        ValueError: no map, or one of a query for other tokens.
    """
    found = torch.empty(0)
    for one in maps:
        if one is None:
            continue
        check_square(one)
        mean, same = one.mean(1), identity(one)
        mixed = (1 - residual) * mean + residual * same
        mixed = mixed / mixed.sum(-1, keepdim=True)  # a row that attends to nothing is itself
        found = mixed if not found.numel() else mixed @ found
    if not found.numel():
        raise ValueError("there is no map to roll out: no layer attends to its own tokens.")
    return found


def check_square(one: Tensor) -> None:
    if one.shape[-1] != one.shape[-2]:
        raise ValueError(
            f"maps of {one.shape[-2]} queries and {one.shape[-1]} keys cannot follow each other: give those "
            "of a stack's own tokens."
        )


def identity(like: Tensor) -> Tensor:
    """``(tokens, tokens)``, of a map's size, kind and device."""
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def entropy(weights: Tensor, mask: Tensor | None = None) -> Tensor:
    """How widely each head looks, in bits, ``(batch, heads)``: 0 is a single key, ``log2(n)`` all of n alike;
    the mean over queries.

    Args:
        weights: ``(batch, heads, queries, keys)``.
        mask: ``(batch, queries)``, True = counts; a query that attends to nothing never does.
    """
    bits = torch.special.entr(weights).sum(-1) / math.log(2)
    counts = weights.sum(-1) > 0
    if mask is not None:
        counts = counts & mask[:, None]
    return (bits * counts).sum(-1) / counts.sum(-1).clamp(min=1)


def alignment(maps: StackMaps, layer: int | None = None) -> Tensor:
    """What each written token was made from, ``(batch, target tokens, source tokens)``: the mean over heads
    of a decoder's cross-attention.

    Args:
        maps: of the decoder.
        layer: None is the mean over layers too.

    Raises:
        ValueError: a stack without cross-attention.
    """
    across = [one for one in maps.across if one is not None]
    if not across:
        raise ValueError("the stack has no cross-attention, so that nothing is aligned.")
    chosen = across if layer is None else [across[layer]]
    return torch.stack([one.mean(1) for one in chosen]).mean(0)
