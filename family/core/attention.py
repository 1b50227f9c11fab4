"""The only place that computes attention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.cache import KeyValues, Progress, Projected
from family.core.config import TransformerConfig
from family.core.functions import soft_cap
from family.core.init import fused, make_norm
from family.core.mask import Allowed, Shared, allow_context, allow_own
from family.core.rotary import apply_rotary


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    allowed: Allowed,
    dropout: float = 0.0,
    scale: float | None = None,
    cap: float | None = None,
) -> Tensor:
    """``softmax(scale * queries keys^T) values``, ``(batch, heads, tokens, head_dim)``, of keys and values
    maybe fewer heads; zero where nothing is allowed."""
    if allowed.tiles is not None:
        raise ValueError("tiles of scores are for the kernel that asked for them.")
    if cap is not None:
        return attend_eagerly(queries, keys, values, allowed, dropout, scale, cap)[0]
    attended = F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        None if allowed.added is None else allowed.added.to(queries.dtype),
        dropout,
        is_causal=allowed.causal,
        scale=scale,
        enable_gqa=queries.shape[1] != keys.shape[1],
    )
    masked = allowed.fully_masked
    return attended if masked is None else attended.masked_fill(masked, 0.0)


def attend_eagerly(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    allowed: Allowed,
    dropout: float = 0.0,
    scale: float | None = None,
    cap: float | None = None,
    matmul: Callable[[Tensor, Tensor], Tensor] = torch.matmul,
) -> tuple[Tensor, Tensor]:
    """:func:`attend` written out, and the map ``(batch, heads, queries, keys)`` before dropout; ``matmul`` is how
    matrices are multiplied. Heads that share keys are a dimension of their own, along which keys are not repeated
    here; PyTorch's own product does so."""
    shared = (keys.shape[1], queries.shape[1] // keys.shape[1])
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    grouped, keys = (queries * scale).unflatten(1, shared), keys.unsqueeze(2)
    scores = matmul(grouped, keys.transpose(-2, -1)).flatten(1, 2)
    if cap is not None:
        scores = soft_cap(scores, cap)
    if allowed.causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    if allowed.added is not None:
        scores = scores + allowed.added.to(scores.dtype)
    weights = scores.softmax(-1)
    if allowed.fully_masked is not None:
        weights = weights.masked_fill(allowed.fully_masked, 0.0)
    dropped = F.dropout(weights, dropout) if dropout else weights
    attended = matmul(dropped.unflatten(1, shared), values.unsqueeze(2)).flatten(1, 2)
    if allowed.fully_masked is not None:  # what is not finite would stay so, times zero
        attended = attended.masked_fill(allowed.fully_masked, 0.0)
    return attended, weights


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2), self or cross, with grouped heads.

    Self-attention projects queries, keys and values in one product (``qkv``); cross-attention
    projects queries from ``x`` (``query``) and keys and values from the context (``key_value``).

    Example:
        >>> attention = Attention(TransformerConfig(dim=64, heads=4, kv_heads=2))
        >>> attention(torch.zeros(2, 10, 64)).shape
        torch.Size([2, 10, 64])
    """

    linear, attend = staticmethod(F.linear), staticmethod(attend)
    """The product with a part of a fused layer, and the kernel; others may be put in their places."""

    def __init__(self, config: TransformerConfig, cross: bool = False) -> None:
        super().__init__()
        kv_heads, head_dim, context_dim = config.kv_heads, config.head_dim, config.context_dim
        assert kv_heads is not None and head_dim is not None and context_dim is not None
        self.config, self.cross = config, cross
        self.heads, self.kv_heads, self.head_dim = config.heads, kv_heads, head_dim
        self.dropout, self.scale = config.attention_dropout, config.attention_scale
        self.cap = config.score_cap
        query_dim, kv_dim = self.heads * head_dim, kv_heads * head_dim
        biased = bool(config.qkv_bias)
        if cross:
            self.query = nn.Linear(config.dim, query_dim, biased)
            self.key_value = fused(context_dim, 2 * kv_dim, biased and config.key_bias, parts=2)
        else:
            parts = 3 if kv_dim == query_dim else 1
            width = query_dim + 2 * kv_dim
            self.qkv = fused(config.dim, width, biased and config.key_bias, parts)
        self.out = nn.Linear(query_dim, config.dim, bool(config.out_bias))
        self.query_bias = self.value_bias = None  # where keys have none
        if biased and not config.key_bias:
            self.query_bias = None if cross else nn.Parameter(torch.zeros(query_dim))
            self.value_bias = nn.Parameter(torch.zeros(kv_dim))
        self.query_norm: nn.Module = nn.Identity()
        self.key_norm: nn.Module = nn.Identity()
        self.whole = config.qk_norm_whole and config.qk_norm is not None
        if isinstance(config.qk_norm, str):
            dims = (query_dim, kv_dim) if self.whole else (head_dim, head_dim)
            self.query_norm, self.key_norm = (make_norm(config, d, config.qk_norm) for d in dims)
        self.record: Callable[[Tensor], Any] | None = None
        """What is told each map, as the product with the values reads it."""

    def forward(self, x: Tensor, shared: Shared = Shared(), state: Any = None) -> Tensor:
        """Attend from ``x`` to itself, or to ``shared.context``.

        Args:
            x: ``(batch, queries, dim)``.
            shared: masks, positions, context.
            state: :class:`~family.core.cache.KeyValues` of earlier tokens, extended in place; across,
                :class:`~family.core.cache.Projected`, after whose first use the context may be left out.

        Returns:
            ``(batch, queries, dim)``.
        """
        if self.cross:
            queries, keys, values = self._across(x, shared, state)
            allowed = shared.context_allowed or allow_context(shared, x.dtype)
        else:
            queries, keys, values = self._project(x, shared)
            if self.config.position == "rotary":
                if shared.rotary is None:
                    raise ValueError(
                        "position='rotary' needs shared.rotary, as a Transformer gives."
                    )
                queries = apply_rotary(queries, shared.rotary)
                keys = apply_rotary(keys, shared.rotary)
            if state is not None:
                if shared.allowed is None:
                    raise ValueError("a state needs shared.allowed, as a Transformer gives.")
                keys, values = state.append(keys, values)
            allowed = shared.allowed or allow_own(self.config, shared, x)
        dropout = self.dropout if self.training else 0.0
        if self.record is None:
            attended = self.attend(queries, keys, values, allowed, dropout, self.scale, self.cap)
        else:
            if allowed.tiles is not None:
                allowed = allow_own(self.config, shared, x)
            attended, weights = attend_eagerly(
                queries, keys, values, allowed, dropout, self.scale, self.cap
            )
            self.record(weights)
        return self.out(attended.transpose(1, 2).flatten(2))

    def new_state(self, like: Tensor, rows: int, progress: Progress) -> KeyValues:
        """An empty state for so many rows, in the dtype and on the device of ``like``."""
        window = self.config.window if self.config.causal else None
        return KeyValues(like, (rows, self.kv_heads, self.head_dim), window, progress)

    def _project(self, x: Tensor, shared: Shared) -> tuple[Tensor, Tensor, Tensor]:
        query_dim, kv_dim = self.heads * self.head_dim, self.kv_heads * self.head_dim
        position = shared.query_position
        if position is not None:
            # Positions reach queries and keys, but not values.
            both = self._rows(self.qkv, x + position, 0, query_dim + kv_dim)
            query, key = both.split([query_dim, kv_dim], dim=-1)
            value = self._rows(self.qkv, x, query_dim + kv_dim, kv_dim)
        elif self.whole or self.value_bias is not None:
            query, key, value = self.qkv(x).split([query_dim, kv_dim, kv_dim], dim=-1)
        else:
            heads = [self.heads, self.kv_heads, self.kv_heads]
            query, key, value = self._split(self.qkv(x)).split(heads, dim=1)
            return self.query_norm(query), self.key_norm(key), value
        if self.value_bias is not None:
            query, value = query + self.query_bias, value + self.value_bias
        query, key = self._normed(query, self.query_norm), self._normed(key, self.key_norm)
        return query, key, self._split(value)

    def _across(
        self, x: Tensor, shared: Shared, state: Projected | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        query = self.query(x if shared.query_position is None else x + shared.query_position)
        query = self._normed(query, self.query_norm)
        if state is not None and state.pair is not None:
            return (query, *state.pair)
        context, kv_dim = shared.context, self.kv_heads * self.head_dim
        if context is None:
            raise ValueError("cross-attention needs a context (batch, keys, context_dim).")
        if shared.context_position is None:
            key, value = self.key_value(context).chunk(2, dim=-1)
        else:
            key = self._rows(self.key_value, context + shared.context_position, 0, kv_dim)
            value = self._rows(self.key_value, context, kv_dim, kv_dim)
        if self.value_bias is not None:
            value = value + self.value_bias
        keys, values = self._normed(key, self.key_norm), self._split(value)
        if state is not None:
            # Read at every step to come, so laid out once as products want them.
            keys, values = state.pair = keys.contiguous(), values.contiguous()
        return query, keys, values

    def _rows(self, layer: nn.Linear, x: Tensor, first: int, count: int) -> Tensor:
        """The product with some rows of a fused layer."""
        rows = slice(first, first + count)
        return self.linear(x, layer.weight[rows], None if layer.bias is None else layer.bias[rows])

    def _normed(self, x: Tensor, norm: nn.Module) -> Tensor:
        return self._split(norm(x)) if self.whole else norm(self._split(x))

    def _split(self, x: Tensor) -> Tensor:
        """``(batch, tokens, heads * head_dim) -> (batch, heads, tokens, head_dim)``."""
        batch, tokens, _ = x.shape
        return x.view(batch, tokens, -1, self.head_dim).transpose(1, 2)
