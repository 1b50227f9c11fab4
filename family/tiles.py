"""FlexAttention on a GPU, put into a model from outside: windows, packed documents and padding become
tiles of scores that are left out, and no mask of all scores is ever held."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from family.core.attention import Attention, attend
from family.core.cache import Cache, KeyValues
from family.core.config import TransformerConfig
from family.core.functions import soft_cap
from family.core.mask import Allowed, Shared, allow_own
from family.core.transformer import Transformer

DEVICES = ("cuda",)
"""Where the kernel is fast, and has gradients."""
TILE = 128
"""Queries and keys of a tile, under twice which there is nothing to leave out."""


def use_tiles(model: nn.Module) -> None:
    """Let a model's stacks say what may be seen in tiles, and its attentions compute so, in place."""
    for module in model.modules():
        if isinstance(module, Transformer):
            module.allow = allow_tiles
        elif isinstance(module, Attention):
            module.attend = attend_tiles


def allow_tiles(
    config: TransformerConfig,
    shared: Shared,
    x: Tensor,
    cache: Cache | None = None,
    state: KeyValues | None = None,
) -> Allowed:
    """:func:`~family.core.mask.allow_own`, in tiles where some of them can be left out."""
    if cache is None and worth_tiles(config, shared, x):
        return Allowed(tiles=block_mask(config, shared, x))
    return allow_own(config, shared, x, cache, state)


def worth_tiles(config: TransformerConfig, shared: Shared, x: Tensor) -> bool:
    """Whether tiles can say it, and say it better than a mask."""
    padding = shared.mask
    if x.device.type not in DEVICES or x.shape[1] < 2 * TILE or (config.head_dim or 0) < 16:
        return False
    if shared.bias is not None or (torch.is_grad_enabled() and config.attention_dropout):
        return False
    if padding is not None and padding.shape != x.shape[:2]:
        return False
    window = config.window is not None and config.window < x.shape[1]
    return window or shared.documents is not None or (config.causal and padding is not None)


def block_mask(config: TransformerConfig, shared: Shared, x: Tensor) -> Any:
    """A BlockMask of key padding, documents, causality and window."""
    padding, documents, window = shared.mask, shared.documents, config.window

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        result = key <= query if config.causal else key >= 0
        if window is not None:
            result = result & ((query - key).abs() < window)
        if documents is not None:
            result = result & (documents[row, query] == documents[row, key])
        return result if padding is None else result & padding[row, key]

    rows = None if padding is None and documents is None else x.shape[0]
    return flex()[1](seen, rows, None, x.shape[1], x.shape[1], device=x.device)


def attend_tiles(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    allowed: Allowed,
    dropout: float = 0.0,
    scale: float | None = None,
    cap: float | None = None,
) -> Tensor:
    """:func:`~family.core.attention.attend`, by FlexAttention where tiles say what may be seen."""
    if allowed.tiles is None:
        return attend(queries, keys, values, allowed, dropout, scale, cap)
    bend = None if cap is None else partial(capped, cap=cap)
    grouped = queries.shape[1] != keys.shape[1]
    return flex()[0](queries, keys, values, bend, allowed.tiles, scale, grouped)


def capped(score: Tensor, *_: Tensor, cap: float) -> Tensor:
    """A score, as FlexAttention hands it over with its places."""
    return soft_cap(score, cap)


@cache
def flex() -> tuple[Any, Any]:
    """FlexAttention and what makes its masks, compiled: as written they hold all scores."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    return torch.compile(flex_attention), torch.compile(create_block_mask)
