"""A stack of blocks."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from family.core.attention import Allowed, allow, allow_causal, expand_mask
from family.core.block import Block, Residual
from family.core.cache import Cache, LayerCache, Progress
from family.core.config import TransformerConfig
from family.core.norm import make_norm
from family.core.position import AlibiBias, RelativeBias, Rotary


class Transformer(nn.Module):
    """``depth`` blocks and an optional final norm: encoder, decoder, or decoder with a context.

    Positions that act on queries and keys (rotary) or on scores (relative, ALiBi) are computed here
    once for all layers; those that are added to embeddings belong to ``family.inputs``.
    """

    def __init__(self, config: TransformerConfig, checkpoint_blocks: bool = False) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_blocks = checkpoint_blocks
        last = max(1, config.depth - 1)
        rates = [config.drop_path * i / last for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        final = config.final_norm
        self.norm = make_norm(config.norm, config.dim, config.norm_eps) if final else nn.Identity()
        assert config.rotary_dim is not None
        self.rotary = None
        if config.position == "rotary":
            self.rotary = Rotary(
                config.rotary_dim, config.rotary_base, config.rotary_axes, config.rotary_scaling
            )
        self.bias: nn.Module | None = None
        if config.position == "relative":
            self.bias = RelativeBias(
                config.heads,
                config.relative_buckets,
                config.relative_max_distance,
                bidirectional=not config.causal,
            )
        elif config.position == "alibi":
            self.bias = AlibiBias(config.heads)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as GPT-2 does (normal, of pre-norm branches the ends scaled by depth) or as 2017
        (Xavier)."""
        std = self.config.init_std
        for module in self.modules():
            if isinstance(module, nn.Linear):
                if std is None:
                    xavier_uniform_parts_(module.weight, getattr(module, "parts", 1))
                else:
                    nn.init.normal_(module.weight, std=std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if std is not None and self.config.norm_order == "pre":
            branches = [m for m in self.modules() if isinstance(m, Residual)]
            for branch in branches:
                for name in ("out", "down"):
                    if hasattr(branch.sublayer, name):
                        last = getattr(branch.sublayer, name)
                        nn.init.normal_(last.weight, std=std / math.sqrt(len(branches)))

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        query_position: Tensor | None = None,
        context_position: Tensor | None = None,
        cache: Cache | None = None,
        layers: list[Tensor] | None = None,
    ) -> Tensor:
        """``(batch, tokens, dim) -> (batch, tokens, dim)``.

        Args:
            mask: as :class:`~family.core.attention.Attention`'s; key padding comes from the cache
                where there is one.
            context_mask: ``(batch, keys)``, or of three or four dimensions as Attention's.
            positions: ``(tokens)`` or ``(batch, tokens)``; None counts from 0, or from the cache.
                Rotary positions over several axes are given, ``(tokens, axes)`` or
                ``(batch, tokens, axes)``.
            cache: these tokens are appended in place; the caller then advances it.
            layers: a list that receives the output of every block, through the final norm (DETR's
                auxiliary losses).
        """
        rotary, bias = self._positions(x, positions, cache)
        if context_mask is not None:
            context_mask = expand_mask(context_mask, context_mask.shape[0])
        arguments: dict[str, Any] = {
            "mask": self._allowed(x, mask, bias, cache),
            "rotary": rotary,
            "context": context,
            "context_mask": allow(context_mask, None, x.dtype),
            "query_position": query_position,
            "context_position": context_position,
        }
        for i, block in enumerate(self.blocks):
            if cache is not None:
                arguments["cache"] = cache.layers[i]
            if self.checkpoint_blocks and self.training:
                x = checkpoint(partial(block, **arguments), x, use_reentrant=False)
            else:
                x = block(x, **arguments)
            if layers is not None:
                layers.append(self.norm(x))
        return self.norm(x) if layers is None else layers[-1]

    def _allowed(
        self, x: Tensor, mask: Tensor | None, bias: Tensor | None, cache: Cache | None
    ) -> Allowed:
        """Padding, causality, window and bias merged once for all layers."""
        batch, keys, _ = x.shape
        column: Tensor | int = 0
        if cache is not None:
            keys, column = cache.width(keys), cache.progress.column
            if cache.seen is not None:
                visible = cache.visible(keys, self.config.window)
                return allow(visible[:, None], bias, x.dtype, empty_rows=False)
            if cache.mask is not None:
                mask = cache.mask[:, :keys]
        mask = expand_mask(mask, batch)
        if self.config.causal:
            return allow_causal(mask, bias, x, keys, column, self.config.window)
        return allow(mask, bias, x.dtype)

    def _positions(
        self, x: Tensor, positions: Tensor | None, cache: Cache | None
    ) -> tuple[tuple[Tensor, Tensor] | None, Tensor | None]:
        if self.rotary is None and self.bias is None:
            return None, None
        tokens = x.shape[1]
        if positions is None and self.rotary is not None and self.rotary.axes > 1:
            axes = self.rotary.axes
            raise ValueError(f"rotary_axes={axes} needs positions (tokens, {axes}), not None.")
        if positions is None and cache is None:
            positions = torch.arange(tokens, device=x.device)
        elif positions is None:
            assert cache is not None
            positions = cache.positions(cache.progress.column, tokens)
        rotary = None if self.rotary is None else self.rotary(positions, x.dtype)
        if self.bias is None:
            return rotary, None
        keys = positions if cache is None else cache.positions(0, cache.width(tokens))
        return rotary, self.bias(positions, keys)

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """An empty cache of ``capacity`` tokens a row, in the dtype and on the device of the model."""
        like = next(self.parameters())
        kv_heads, head_dim = self.config.kv_heads, self.config.head_dim
        assert kv_heads is not None
        assert head_dim is not None
        shape = (batch, kv_heads, capacity, head_dim)
        progress = Progress(like.device)
        layers = [
            LayerCache(like.new_zeros(shape), like.new_zeros(shape), progress)
            for _ in range(self.config.depth)
        ]
        return Cache(layers)


def xavier_uniform_parts_(weight: Tensor, parts: int) -> None:
    """Xavier for each of the ``parts`` matrices that ``(parts * out, in)`` holds, as if they were apart."""
    with torch.no_grad():
        for part in weight.chunk(parts):
            nn.init.xavier_uniform_(part)
