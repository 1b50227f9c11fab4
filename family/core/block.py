"""A block: a short list of residual sublayers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.attention import Attention
from family.core.cache import LayerCache
from family.core.config import TransformerConfig
from family.core.feedforward import FeedForward
from family.core.norm import make_norm


class Residual(nn.Module):
    """A sublayer on a branch, added to what came in.

    ::

        pre-norm:   x ── norm ── sublayer ── scale ── dropout ──(+)──      post-norm: no norm on the
                    └──────────────────────────────────────────┘          branch, but after the (+)

    Args:
        sublayer: any module; the first argument is ``(batch, tokens, dim)``, as is the result.
        drop_path: the chance that training leaves the whole branch of an example out.

    ``onto`` is what the branch is added to, where that is not its own input (parallel blocks).
    """

    def __init__(self, sublayer: nn.Module, config: TransformerConfig, drop_path: float) -> None:
        super().__init__()
        self.norm = make_norm(config.norm, config.dim, config.norm_eps)
        self.sublayer = sublayer
        self.pre = config.norm_order == "pre"
        self.dropout = config.dropout
        self.drop_path = drop_path
        self.scale = None
        if config.layer_scale is not None:
            self.scale = nn.Parameter(torch.full((config.dim,), float(config.layer_scale)))

    def forward(self, x: Tensor, *args: Any, onto: Tensor | None = None, **kwargs: Any) -> Tensor:
        branch = self.sublayer(self.norm(x) if self.pre else x, *args, **kwargs)
        if self.scale is not None:
            branch = branch * self.scale
        if self.training:
            branch = F.dropout(branch, self.dropout)
            if self.drop_path:
                keep = 1 - self.drop_path
                branch = branch * branch.new_empty(len(x), 1, 1).bernoulli_(keep).div_(keep)
        total = (x if onto is None else onto) + branch
        return total if self.pre else self.norm(total)


class Block(nn.Module):
    """Self-attention, maybe cross-attention, feed-forward (Vaswani et al. 2017, section 3.1).

    In a ``parallel`` block the feed-forward reads what attention reads, and both are added:
    ``x + attention(norm(x)) + feedforward(norm(x))``, each with its own norm (Black et al. 2022).

    Args:
        config: the stack that this block is one of.
        drop_path: stochastic depth of this block; None is the config's rate.
        self_attention, feedforward: modules to stand in the place of the usual ones.
    """

    def __init__(
        self,
        config: TransformerConfig,
        drop_path: float | None = None,
        *,
        self_attention: nn.Module | None = None,
        feedforward: nn.Module | None = None,
    ) -> None:
        super().__init__()
        drop = config.drop_path if drop_path is None else drop_path
        attention = Attention(config) if self_attention is None else self_attention
        self.self_attention = Residual(attention, config, drop)
        self.cross_attention = None
        if config.cross_attention:
            self.cross_attention = Residual(Attention(config, cross=True), config, drop)
        ffn = FeedForward(config) if feedforward is None else feedforward
        self.feedforward = Residual(ffn, config, drop)
        self.parallel = config.parallel

    def forward(
        self,
        x: Tensor,
        *,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        context_position: Tensor | None = None,
        query_position: Tensor | None = None,
        cache: LayerCache | None = None,
        **attention: Any,
    ) -> Tensor:
        """``(batch, tokens, dim) -> (batch, tokens, dim)``.

        Args:
            context: ``(batch, keys, context_dim)`` for cross-attention.
            context_mask: as :class:`Attention`'s ``mask``.
            query_position, context_position: added to queries and keys (DETR), of ``x`` and of
                the context.
            attention: ``mask``, ``bias``, ``causal``, ``rotary``: handed to self-attention.
        """
        if cache is not None:
            attention["cache"] = cache
        if query_position is not None:
            attention.update(query_position=query_position, key_position=query_position)
        entering, x = x, self.self_attention(x, **attention)
        if self.cross_attention is not None:
            x = self.cross_attention(
                x,
                context,
                mask=context_mask,
                query_position=query_position,
                key_position=context_position,
                cache=cache,
            )
        return self.feedforward(entering, onto=x) if self.parallel else self.feedforward(x)
