"""What all layers of a stack share in one forward pass, and what a query may attend to."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from family.core.cache import Cache, KeyValues
from family.core.config import TransformerConfig


class Allowed(NamedTuple):
    """Mask, bias and causality brought together, once for all layers that agree."""

    added: Tensor | None = None
    """``(batch or 1, heads or 1, queries, keys)``, added to the scores."""
    fully_masked: Tensor | None = None
    """``(batch or 1, heads or 1, queries, 1)``: the queries that may attend to no key."""
    causal: bool = False
    """No query sees a later key, and that is all there is to say: kernels need no mask for it."""
    tiles: Any = None
    """The same in a kernel's own terms, for what was put in the place of :func:`attend`."""


class Shared(NamedTuple):
    """What the blocks of a stack are told beside their input; all of it may be left out.

    A stack hands one to all layers that agree; a block by itself takes it too: ``block(x, Shared(mask))``.
    """

    mask: Tensor | None = None
    """Boolean, True = may attend: ``(batch, keys)`` key padding, ``(queries, keys)``,
    ``(batch, queries, keys)`` or ``(batch, heads, queries, keys)``. Two dimensions are read as key
    padding where the first equals the batch. A query with nothing to attend to gets zeros."""
    bias: Tensor | None = None
    """Added to the scores of self-attention, broadcasts with ``(batch, heads, queries, keys)``."""
    documents: Tensor | None = None
    """``(batch, tokens)``, a number for each text packed into a row: none sees another."""
    context: Tensor | None = None
    """``(batch, keys, context_dim)`` for cross-attention."""
    context_mask: Tensor | None = None
    """``(batch, keys)``, or as ``mask`` of three or four dimensions, for cross-attention."""
    query_position: Tensor | None = None
    """``(batch, tokens, dim)``, added to the input of queries and of keys, but not of values (DETR)."""
    context_position: Tensor | None = None
    """``(batch, keys, context_dim)``, the same for the context."""
    condition: Tensor | None = None
    """``(batch, condition_dim)``, or one for each token ``(batch, tokens, condition_dim)``."""
    rotary: tuple[Tensor, Tensor] | None = None
    """What :class:`~family.core.rotary.Rotary` returned for these tokens."""
    allowed: Allowed | None = None
    """What :func:`allow_own` made of the fields above; None leaves that to each layer."""
    context_allowed: Allowed | None = None
    """What :func:`allow_context` made of them."""


def allow(
    mask: Tensor | None, bias: Tensor | None, dtype: torch.dtype, empty_rows: bool = True
) -> Allowed:
    """Mask and bias as one term of the scores.

    Args:
        mask: boolean, True = may attend, to broadcast with ``(batch, heads, queries, keys)``.
        bias: the same shape.
        dtype: of the queries.
        empty_rows: False promises that every query may attend to some key.
    """
    if mask is None:
        return Allowed(None if bias is None else bias.to(dtype))
    fully_masked = None
    if empty_rows:
        # Such a row attends everywhere and is zeroed after: kernels differ on empty rows.
        fully_masked = ~mask.any(-1, keepdim=True)
        mask = mask | fully_masked
    if bias is None:
        bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return Allowed(bias.to(dtype).masked_fill(~mask, -math.inf), fully_masked)


def allow_context(shared: Shared, dtype: torch.dtype) -> Allowed:
    """What queries may attend to in the context."""
    mask = shared.context_mask
    return allow(mask if mask is None else expand_mask(mask, mask.shape[0]), None, dtype)


def allow_own(
    config: TransformerConfig,
    shared: Shared,
    x: Tensor,
    cache: Cache | None = None,
    state: KeyValues | None = None,
) -> Allowed:
    """What the queries of a layer may attend to in their own sequence: padding, documents, causality,
    window and bias brought together.

    Args:
        x: ``(batch, queries, dim)``.
        cache, state: that this layer's keys come from, where there is a cache; padding is what it says.
    """
    queries, window, mask, bias = x.shape[1], config.window, shared.mask, shared.bias
    columns = None
    if cache is not None and state is not None:
        if cache.seen is not None:
            visible = cache.visible(state.columns(queries), queries, window)
            return allow(visible[:, None], bias, x.dtype, empty_rows=False)
        mask = None if cache.mask is None else cache.mask[:, :queries]
        if not cache.fresh:
            columns = state.columns(queries)
            mask = None if cache.mask is None else cache.mask[:, columns.clamp(min=0)]
    if window is not None and (queries if columns is None else len(columns)) <= window:
        window = None
    mask = expand_mask(mask, x.shape[0])
    plain = mask is None and bias is None and shared.documents is None
    if plain and config.causal and columns is None and window is None:
        return Allowed(causal=True)
    empty_rows = mask is not None
    if shared.documents is not None:
        same = shared.documents.unsqueeze(-1) == shared.documents.unsqueeze(-2)
        mask = same[:, None] if mask is None else mask & same[:, None]
    # Of a cache's columns, a last query alone sees all that its layer kept.
    whole = cache is not None and cache.progress.static and cache.progress.there is None
    alone = columns is not None and queries == 1 and not whole
    if (config.causal and not alone) or window is not None:
        seen = within(config.causal, window, x, cache, columns)[None, None]
        mask = seen if mask is None else mask & seen
    return allow(mask, bias, x.dtype, empty_rows)


def within(
    causal: bool, window: int | None, x: Tensor, cache: Cache | None, columns: Tensor | None
) -> Tensor:
    """``(queries, keys)``: the keys that are not later, and less than a window away.

    Args:
        columns: where the keys stand; None is where the queries do.
    """
    own = torch.arange(x.shape[1], device=x.device)
    if columns is None:
        columns = own
    elif cache is not None:
        own = own + cache.progress.column
    distance = columns - own.unsqueeze(-1)
    seen = columns >= 0  # a ring that is not yet full
    if causal:
        seen = seen & (distance <= 0)
    return seen if window is None else seen & (distance.abs() < window)


def expand_mask(mask: Tensor | None, batch: int) -> Tensor | None:
    """A mask of any accepted shape, made to broadcast with ``(batch, heads, queries, keys)``."""
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean (True = may attend), not {mask.dtype}.")
    if mask is None or mask.dim() == 4:
        return mask
    if mask.dim() == 3:
        return mask[:, None]
    return mask[:, None, None] if mask.shape[0] == batch else mask[None, None]
