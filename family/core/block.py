"""A block: a short list of residual sublayers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.attention import Attention
from family.core.cache import BlockState, Progress, Projected
from family.core.config import TransformerConfig
from family.core.experts import Experts
from family.core.feedforward import FeedForward
from family.core.init import make_norm
from family.core.mask import Shared

MIXERS: dict[str, type[nn.Module]] = {"attention": Attention}
FEEDFORWARDS: dict[str, type[nn.Module]] = {"dense": FeedForward, "experts": Experts}


class Residual(nn.Module):
    """A sublayer on a branch, added to what came in.

    ::

        x ── norm ── sublayer ── branch_norm ── scale ── dropout ──(+)── norm ──
        └───────────────────────────────────────────────────────────┘

    ``norm`` stands before the sublayer ("pre"), after the sum ("post") or after the sublayer
    ("branch"); "sandwich" has one before, and ``branch_norm``. A condition shifts and scales what the
    sublayer reads and gates what it adds (DiT, section 3.2); the norm then learns neither.

    Args:
        sublayer: any module; the first argument is ``(batch, tokens, dim)``, as is the result.
        drop_path: the chance that training leaves the whole branch of an example out.
        norm: False leaves out the norm before the sublayer.
    """

    def __init__(
        self,
        sublayer: nn.Module,
        config: TransformerConfig,
        drop_path: float = 0.0,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.order = order = config.norm_order
        self.norm: nn.Module = nn.Identity()
        if norm or order != "pre":
            self.norm = make_norm(config, affine=config.condition_dim is None)
        self.branch_norm: nn.Module = nn.Identity()
        if order == "sandwich":
            self.branch_norm = make_norm(config)
        self.sublayer = sublayer
        self.dropout, self.drop_path = config.dropout, drop_path
        self.scale = self.modulation = None
        if config.layer_scale is not None:
            self.scale = nn.Parameter(torch.full((config.dim,), float(config.layer_scale)))
        if config.condition_dim is not None:
            self.modulation = nn.Linear(config.condition_dim, 3 * config.dim)

    def forward(
        self, x: Tensor, *args: Any, onto: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        """``(batch, tokens, dim) -> (batch, tokens, dim)``.

        Args:
            args: what the sublayer takes beside ``x``.
            onto: what the branch is added to, where that is not its own input (parallel blocks).
            condition: ``(batch, condition_dim)`` or ``(batch, tokens, condition_dim)``.
        """
        branch = self.norm(x) if self.order in ("pre", "sandwich") else x
        gate = None
        if self.modulation is not None:
            if condition is None:
                width = self.modulation.in_features
                raise ValueError(f"condition_dim={width} needs a condition (batch, {width}).")
            each = condition if condition.dim() == 3 else condition.unsqueeze(1)
            shift, scale, gate = self.modulation(F.silu(each)).chunk(3, dim=-1)
            branch = branch * (1 + scale) + shift
        branch = self.sublayer(branch, *args)
        if self.order != "pre":
            branch = self.norm(branch) if self.order == "branch" else self.branch_norm(branch)
        if self.scale is not None:
            branch = branch * self.scale
        if gate is not None:
            branch = branch * gate
        if self.training:
            branch = F.dropout(branch, self.dropout)
            if self.drop_path:
                keep = 1 - self.drop_path
                branch = branch * branch.new_empty(len(x), 1, 1).bernoulli_(keep).div_(keep)
        total = (x if onto is None else onto) + branch
        return self.norm(total) if self.order == "post" else total


class Block(nn.Module):
    """Self-attention, maybe cross-attention, feed-forward (Vaswani et al. 2017, section 3.1).

    A ``parallel`` block is ``x + attention(norm(x)) + feedforward(norm(x))``, each with its own norm
    (Black et al. 2022).

    Args:
        config: the stack that this block is one of, or what :meth:`TransformerConfig.at` says of it.
        drop_path: stochastic depth of this block; None is the config's rate.
        self_attention, feedforward: modules to stand in the place of the usual ones. The first is
            called with ``(x, shared, state)``, see :class:`~family.core.attention.Attention`, the
            second with ``x`` alone. To decode, a mixer needs ``new_state`` as attention has it, see
            :class:`~family.core.cache.BlockState`.

    Example:
        >>> block = Block(TransformerConfig(dim=64, heads=4, norm="rmsnorm", gated=True))
        >>> mask = torch.tensor([[True] * 10, [True] * 6 + [False] * 4])
        >>> block(torch.zeros(2, 10, 64), Shared(mask=mask)).shape
        torch.Size([2, 10, 64])
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
        mixer = self_attention or find("mixer", config.mixer, MIXERS)(config)
        self.self_attention = Residual(mixer, config, drop, norm=config.mixer_norm)
        self.cross_attention = None
        if config.cross_attention:
            self.cross_attention = Residual(Attention(config, cross=True), config, drop)
        ffn = feedforward or find("feedforward", config.feedforward, FEEDFORWARDS)(config)
        self.feedforward = Residual(ffn, config, drop)
        self.parallel = config.parallel

    def forward(
        self, x: Tensor, shared: Shared = Shared(), state: BlockState | None = None
    ) -> Tensor:
        """``(batch, tokens, dim) -> (batch, tokens, dim)``."""
        mixer, context = (None, None) if state is None else state
        condition = shared.condition
        entering = x
        x = self.self_attention(x, shared, mixer, condition=condition)
        if self.cross_attention is not None:
            x = self.cross_attention(x, shared, context, condition=condition)
        if self.parallel:
            return self.feedforward(entering, onto=x, condition=condition)
        return self.feedforward(x, condition=condition)

    def new_state(self, like: Tensor, rows: int, progress: Progress) -> BlockState:
        """What decoding remembers, empty, for so many rows; ``like`` has its dtype and device."""
        mixer: Any = self.self_attention.sublayer
        return BlockState(mixer.new_state(like, rows, progress), Projected())


def find(field: str, name: str, known: Mapping[str, type[nn.Module]]) -> Any:
    """The class of a sublayer, by its name or by its path.

    Raises:
        ValueError: no such class, or one that is no module.
    """
    if name in known:
        return known[name]
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{field}={name!r} cannot be imported: {error}.") from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"{field}={name!r} is no class of modules.")
    return found
