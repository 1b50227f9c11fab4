"""A stack of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from family.core.attention import Attention
from family.core.block import Block
from family.core.cache import Cache, KeyValues, Progress
from family.core.config import TransformerConfig
from family.core.init import initialise, make_norm
from family.core.mask import Shared, allow_context, allow_own
from family.core.position import AlibiBias, RelativeBias
from family.core.rotary import Rotary


class Transformer(nn.Module):
    """``depth`` blocks and an optional final norm: encoder, decoder, or decoder with a context.

    Positions that act on queries and keys (rotary) or on scores (relative, ALiBi) are computed here,
    once for all layers that agree; those that are added to embeddings belong to ``family.inputs``.

    Example:
        >>> config = TransformerConfig(dim=64, depth=2, heads=4, causal=True, position="rotary")
        >>> stack, x = Transformer(config).eval(), torch.randn(1, 10, 64)
        >>> torch.allclose(stack(x)[:, :5], stack(x[:, :5]), atol=1e-5)  # nothing comes from later
        True
    """

    allow = staticmethod(allow_own)
    """What decides which keys are seen; another way to say it may be put in its place."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.configs = [config.at(i) for i in range(config.depth)]
        last = max(1, config.depth - 1)
        self.blocks = nn.ModuleList(
            Block(layer, config.drop_path * i / last) for i, layer in enumerate(self.configs)
        )
        self.norm: nn.Module = nn.Identity()
        if config.final_norm:
            self.norm = make_norm(config)
        kinds: list[tuple[Any, ...]] = []  # layers of one kind are told the same
        for c in self.configs:
            table = c.rotary_dim, c.rotary_base, c.rotary_axes, c.rotary_scaling
            told = c.position, c.window, c.mixer, c.head_dim, c.attention_dropout > 0
            kinds.append((table if c.position == "rotary" else None, *told))
        tables = [table for table in dict.fromkeys(kind[0] for kind in kinds) if table is not None]
        self.rotaries = nn.ModuleList(Rotary(*table) for table in tables)
        self.bias: nn.Module | None = None
        if config.position == "relative":
            sizes = config.heads, config.relative_buckets, config.relative_max_distance
            self.bias = RelativeBias(*sizes, bidirectional=not config.causal)
        elif config.position == "alibi":
            self.bias = AlibiBias(config.heads)
        self.first_alike = [kinds.index(kind) for kind in kinds]
        firsts = {i: kinds[i][0] for i in self.first_alike}
        self.table_of = {i: None if t is None else tables.index(t) for i, t in firsts.items()}
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin as GPT-2 does (normal, of pre-norm branches the ends scaled), or as 2017 (Xavier)."""
        initialise(self, self.config.init_std, scaled=self.config.norm_order == "pre")

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        documents: Tensor | None = None,
        positions: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        query_position: Tensor | None = None,
        context_position: Tensor | None = None,
        condition: Tensor | None = None,
        cache: Cache | None = None,
        layers: list[Tensor] | None = None,
    ) -> Tensor:
        """``(batch, tokens, dim) -> (batch, tokens, dim)``.

        Args:
            mask, documents, context, context_mask, query_position, context_position, condition: see
                :class:`~family.core.mask.Shared`; key padding comes from the cache where there is one.
            positions: ``(tokens)`` or ``(batch, tokens)``, over several axes ``(tokens, axes)`` or ``(batch,
                tokens, axes)``; None counts from 0, or from the cache, of a single axis.
            cache: these tokens are appended in place; the caller then advances it.
            layers: a list that receives the output of every block, through the final norm (DETR's
                auxiliary losses).
        """
        shared = Shared(
            mask=mask,
            documents=documents,
            context=context,
            context_mask=context_mask,
            query_position=query_position,
            context_position=context_position,
            condition=condition,
        )
        for step in self.walk(x, shared, positions, cache):
            x = step(x)
            if layers is not None:
                layers.append(self.norm(x))
        return self.norm(x) if layers is None else layers[-1]

    def walk(
        self,
        x: Tensor,
        shared: Shared = Shared(),
        positions: Tensor | None = None,
        cache: Cache | None = None,
        part: slice = slice(None),
    ) -> Iterator[Callable[..., Tensor]]:
        """The blocks one by one, for a member that does something between them: ``x = step(x)``.

        A step takes another ``query_position``, ``context_position`` or ``condition`` too. Masks and
        rotary tables are made once for all layers that agree, and checkpointing holds.

        Args:
            x, positions, cache: what enters the first of the blocks, and as :meth:`forward`'s.
            part: some of the blocks alone, where others read other tokens or see them otherwise.
        """
        told = self._tell(x, shared, positions, cache)
        for i in range(len(self.blocks))[part]:
            block, state = self.blocks[i], None if cache is None else cache.layers[i]
            yield partial(self._step, block, told[self.first_alike[i]], state)

    def _step(self, block: Any, shared: Shared, state: Any, x: Tensor, **changes: Any) -> Tensor:
        if changes:
            if changes.keys() - {"query_position", "context_position", "condition"}:
                raise ValueError(f"a step cannot change {', '.join(changes)}: give it to walk.")
            shared = shared._replace(**changes)
        if self.config.activation_checkpointing and self.training:
            return checkpoint(block, x, shared, state, use_reentrant=False)
        return block(x, shared, state)

    def _tell(
        self, x: Tensor, shared: Shared, positions: Tensor | None, cache: Cache | None
    ) -> dict[int, Shared]:
        """What layers are told, by the first of those that are told the same."""
        if cache is not None and (shared.documents is not None or shared.mask is not None):
            raise ValueError("a cache knows its own padding, by pad(), and no documents: no mask.")
        if shared.documents is not None and any(table.limit for table in self.rotaries):
            raise ValueError("longrope counts the tokens of a row: it cannot pack documents.")
        if shared.context is not None or shared.context_mask is not None:
            shared = shared._replace(context_allowed=allow_context(shared, x.dtype))
        positions = self._positions(x, shared, positions, cache)
        rotary = [table(positions, x.dtype) for table in self.rotaries]
        told: dict[int, Shared] = {}
        for first, table in self.table_of.items():
            config = self.configs[first]
            state = None if cache is None else cache.layers[first].mixer
            own = shared
            if table is not None:
                own = own._replace(rotary=rotary[table])
            if self.bias is not None and config.position != "none":
                keys = positions
                if cache is not None and isinstance(state, KeyValues):
                    keys = cache.positions(state.columns(x.shape[1]))
                bias = self.bias(positions, keys).to(x.dtype)
                own = own._replace(bias=bias if own.bias is None else bias + own.bias)
            if isinstance(self.blocks[first].self_attention.sublayer, Attention):  # type: ignore[union-attr]
                own = own._replace(allowed=self.allow(config, own, x, cache, state))
            told[first] = own
        return told

    def _positions(
        self, x: Tensor, shared: Shared, positions: Tensor | None, cache: Cache | None
    ) -> Tensor | None:
        if positions is not None or (not self.rotaries and self.bias is None):
            return positions
        axes = self.config.rotary_axes
        if self.rotaries and axes > 1:
            raise ValueError(f"rotary_axes={axes} needs positions (tokens, {axes}), not None.")
        if cache is not None:
            return cache.next_positions(x.shape[1])
        return torch.arange(x.shape[1], device=x.device)

    def new_cache(self, batch: int, capacity: int, branches: int = 1, spare: int = 0) -> Cache:
        """An empty cache in the dtype and on the device of the model.

        Args:
            capacity: columns of a row; a step of ``branches`` takes one for each.
            branches: in how many ways each row will go on, see :meth:`Cache.branch`.
            spare: of the last columns so many may be taken back, by :meth:`Cache.rewind`.
        """
        like = next(self.parameters())
        progress = Progress(capacity, branches, like.device, spare)
        states = [block.new_state(like, batch, progress) for block in self.blocks]  # type: ignore[operator]
        return Cache(states, progress, batch)
