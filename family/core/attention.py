"""The only place that computes attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.cache import LayerCache
from family.core.config import TransformerConfig
from family.core.linear import Linear, linear
from family.core.position import apply_rotary


class Allowed(NamedTuple):
    """Mask, bias and causality brought together, once for all layers of a stack."""

    added: Tensor | None = None
    """``(batch or 1, heads or 1, queries, keys)``, added to the scores."""
    nothing: Tensor | None = None
    """``(batch or 1, heads or 1, queries, 1)``: the queries that may attend to no key."""
    causal: bool = False
    """No query sees a later key, and that is all there is to say: kernels need no mask for it."""


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2), self or cross, with grouped heads.

    Self-attention projects queries, keys and values in one product (``qkv``); cross-attention
    projects queries from ``x`` (``query``) and keys and values from the context (``key_value``).
    """

    def __init__(self, config: TransformerConfig, cross: bool = False) -> None:
        super().__init__()
        kv_heads, head_dim, context_dim = config.kv_heads, config.head_dim, config.context_dim
        qkv_bias = config.qkv_bias
        assert kv_heads is not None and head_dim is not None and context_dim is not None
        assert qkv_bias is not None
        self.heads, self.kv_heads, self.head_dim = config.heads, kv_heads, head_dim
        self.cross, self.causal = cross, config.causal and not cross
        self.window = config.window
        self.dropout, self.scale = config.attention_dropout, config.attention_scale
        query_dim, kv_dim = self.heads * head_dim, kv_heads * head_dim
        if cross:
            self.query = Linear(config.dim, query_dim, qkv_bias)
            self.key_value = Linear(context_dim, 2 * kv_dim, qkv_bias, parts=2)
        else:
            parts = 3 if kv_dim == query_dim else 1
            self.qkv = Linear(config.dim, query_dim + 2 * kv_dim, qkv_bias, parts=parts)
        self.out = Linear(query_dim, config.dim, config.bias)
        norm = partial(nn.RMSNorm, head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity
        self.query_norm, self.key_norm = norm(), norm()
        self.record: list[Tensor] | None = None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        mask: Tensor | Allowed | None = None,
        bias: Tensor | None = None,
        causal: bool | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        query_position: Tensor | None = None,
        key_position: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Attend from ``x`` to itself, or to ``context``.

        Args:
            x: ``(batch, queries, dim)``.
            context: ``(batch, keys, context_dim)`` for cross-attention; may be left out once
                ``cache`` holds its projection.
            mask: boolean, True = may attend; ``(batch, keys)`` key padding, ``(queries, keys)``,
                ``(batch, queries, keys)`` or ``(batch, heads, queries, keys)``. Two dimensions are
                read as key padding where the first equals the batch. A query with nothing to
                attend to gets zeros (before the output projection). Or all that there is to say,
                bias and causality too, as :func:`allow` or :func:`allow_causal` returned it.
            bias: added to the scores, broadcasts with ``(batch, heads, queries, keys)``.
            causal: no query sees a later key, nor one before its window, where the config has one;
                None is what the config says.
            rotary: what :class:`~family.core.position.Rotary` returned for these tokens.
            query_position, key_position: added to the input of queries and of keys, but not of
                values (DETR), ``(batch, tokens, dim)``.
            cache: keys and values of earlier tokens, extended in place.

        Returns:
            ``(batch, queries, dim)``.
        """
        queries, keys, values = self._project(x, context, query_position, key_position, cache)
        if rotary is not None:
            queries, keys = apply_rotary(queries, rotary), apply_rotary(keys, rotary)
        column: Tensor | int = 0
        if cache is not None and not self.cross:
            column = cache.progress.column
            keys, values = cache.append(keys, values)
        if isinstance(mask, Allowed):
            allowed = mask
        else:
            mask = expand_mask(mask, x.shape[0])
            if self.causal if causal is None else causal:
                allowed = allow_causal(mask, bias, x, keys.shape[2], column, self.window)
            else:
                allowed = allow(mask, bias, x.dtype)
        dropout = self.dropout if self.training else 0.0
        if self.record is None:
            attended = attend(queries, keys, values, allowed, dropout, self.scale)
        else:
            attended, weights = attend_eagerly(queries, keys, values, allowed, dropout, self.scale)
            self.record.append(weights.detach())
        return self.out(attended.transpose(1, 2).flatten(2))

    def _project(
        self,
        x: Tensor,
        context: Tensor | None,
        query_position: Tensor | None,
        key_position: Tensor | None,
        cache: LayerCache | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        query_dim, kv_dim = self.heads * self.head_dim, self.kv_heads * self.head_dim
        asking = x if query_position is None else x + query_position
        if self.cross:
            query = self.query(asking)
            if cache is not None and cache.context is not None:
                return (self.query_norm(self._split(query)), *cache.context)
            if context is None:
                raise ValueError("cross-attention needs a context (batch, keys, context_dim).")
            key, value = self._linear(self.key_value, context, key_position, 0, kv_dim)
        elif query_position is None and key_position is None:
            heads = [self.heads, self.kv_heads, self.kv_heads]
            query, key, value = self._split(self.qkv(x)).split(heads, dim=1)
            return self.query_norm(query), self.key_norm(key), value
        else:
            query = linear(asking, *self._rows(self.qkv, 0, query_dim))
            key, value = self._linear(self.qkv, x, key_position, query_dim, kv_dim)
        keys, values = self.key_norm(self._split(key)), self._split(value)
        if self.cross and cache is not None:
            # Read at every step to come, so laid out once as products want them.
            cache.context = keys.contiguous(), values.contiguous()
        return self.query_norm(self._split(query)), keys, values

    def _linear(
        self, fused: Linear, x: Tensor, key_position: Tensor | None, first: int, dim: int
    ) -> tuple[Tensor, Tensor]:
        """Keys and values from the rows of a fused projection that begin at ``first``."""
        if key_position is None:
            key, value = linear(x, *self._rows(fused, first, 2 * dim)).chunk(2, dim=-1)
            return key, value
        key = linear(x + key_position, *self._rows(fused, first, dim))
        return key, linear(x, *self._rows(fused, first + dim, dim))

    @staticmethod
    def _rows(fused: Linear, first: int, count: int) -> tuple[Tensor, Tensor | None]:
        rows = slice(first, first + count)
        return fused.weight[rows], None if fused.bias is None else fused.bias[rows]

    def _split(self, x: Tensor) -> Tensor:
        """``(batch, tokens, heads * head_dim) -> (batch, heads, tokens, head_dim)``."""
        batch, tokens, _ = x.shape
        return x.view(batch, tokens, -1, self.head_dim).transpose(1, 2)


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    allowed: Allowed,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """``softmax(scale * queries keys^T) values`` by the fastest kernel there is, zero where nothing is
    allowed; ``(batch, heads, tokens, head_dim)``, of keys and values maybe fewer heads."""
    added, nothing, causal = allowed
    if few_scores(queries, keys) and not causal:
        return attend_eagerly(queries, keys, values, allowed, dropout, scale)[0]
    attended = F.scaled_dot_product_attention(
        queries,
        keys,
        values,
        None if added is None else added.to(queries.dtype),
        dropout,
        is_causal=causal,
        scale=scale,
        enable_gqa=queries.shape[1] != keys.shape[1],
    )
    return attended if nothing is None else attended.masked_fill(nothing, 0.0)


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


def attend_eagerly(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    allowed: Allowed,
    dropout: float = 0.0,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`attend` written out, and the map ``(batch, heads, queries, keys)`` before dropout."""
    added, nothing, causal = allowed
    group = queries.shape[1] // keys.shape[1]
    if group > 1:
        keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
    scale = queries.shape[-1] ** -0.5 if scale is None else scale
    scores = queries * scale @ keys.transpose(-2, -1)
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -math.inf)
    if added is not None:
        scores = scores + added.to(scores.dtype)
    weights = scores.softmax(-1)
    attended = (F.dropout(weights, dropout) if dropout else weights) @ values
    if nothing is not None:
        attended, weights = attended.masked_fill(nothing, 0.0), weights.masked_fill(nothing, 0.0)
    return attended, weights


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
    nothing = None
    if empty_rows:
        # Such a row attends everywhere and is zeroed after: kernels differ on empty rows.
        nothing = ~mask.any(-1, keepdim=True)
        mask = mask | nothing
    if bias is None:
        bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return Allowed(bias.to(dtype).masked_fill(~mask, -math.inf), nothing)


def allow_causal(
    mask: Tensor | None,
    bias: Tensor | None,
    x: Tensor,
    keys: int,
    column: Tensor | int = 0,
    window: int | None = None,
) -> Allowed:
    """What :func:`allow` says, and: no later key, nor any but the last ``window``.

    Args:
        mask, bias: as :func:`allow`'s.
        x: ``(batch, queries, dim)``; query ``i`` stands in column ``column + i`` of the keys. A
            tensor of a column is for compiled steps, whose shapes must not depend on it.
        keys: how many there are.
    """
    queries, padded = x.shape[1], mask is not None
    if window is not None and keys <= window:
        window = None
    unbounded = window is None and isinstance(column, int)
    if unbounded and queries == keys and mask is None and bias is None:
        return Allowed(causal=True)
    if not (unbounded and queries == 1):  # a last query alone sees all that came before
        own = (column + torch.arange(queries, device=x.device)).unsqueeze(-1)
        columns = torch.arange(keys, device=x.device)
        seen = columns <= own
        if window is not None:
            seen = seen & (columns > own - window)
        mask = seen[None, None] if mask is None else mask & seen
    return allow(mask, bias, x.dtype, empty_rows=padded)


def expand_mask(mask: Tensor | None, batch: int) -> Tensor | None:
    """A mask of any accepted shape, made to broadcast with ``(batch, heads, queries, keys)``."""
    if mask is None:
        return mask
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be boolean (True = may attend), not {mask.dtype}.")
    if mask.dim() == 4:
        return mask
    if mask.dim() == 3:
        return mask[:, None]
    return mask[:, None, None] if mask.shape[0] == batch else mask[None, None]


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Record the attention maps of every :class:`Attention` in ``model``, around any use of it.

    Yields:
        module name -> one ``(batch, heads, queries, keys)`` a call, filled as the model runs.
    """
    maps: dict[str, list[Tensor]] = {}
    modules = {name: m for name, m in model.named_modules() if isinstance(m, Attention)}
    for name, module in modules.items():
        module.record = maps[name] = []
    try:
        yield maps
    finally:
        for module in modules.values():
            module.record = None
