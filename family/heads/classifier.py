"""From many tokens to one vector, and from it to classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from family.core.attention import Attention
from family.core.block import Residual
from family.core.config import TransformerConfig
from family.core.feedforward import FeedForward
from family.core.functions import ACTIVATIONS
from family.core.init import init_linear, initialise, make_norm
from family.core.mask import Shared
from family.heads.pooling import pool_mean

POOLS = ("class", "mean", "class+mean", "attention")
POOLERS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, **ACTIVATIONS}


@dataclass(frozen=True)
class PoolConfig:
    """How many tokens become one vector, and that vector classes.

    Args:
        kind: "class" takes the class token, "mean" the mean over patches, "class+mean" both side by
            side, "attention" a learned query that attends to patches.
        norm_after: the final norm stands after pooling instead of before; None is so for "mean", as
            timm has it.
        pooler: a dense layer with this activation before the classes: "tanh" (the representation
            layer of pre-training, Dosovitskiy et al. 2021, section 3.1) or "relu".
        head_bias, head_dropout: of the classes' linear layer.

    Raises:
        ValueError: an unknown ``kind``, or "class+mean" with a norm after it.
    """

    kind: str = "class"
    norm_after: bool | None = None
    pooler: str | None = None
    head_bias: bool = True
    head_dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in POOLS:
            choices = ", ".join(POOLS)
            raise ValueError(f"pooling.kind={self.kind!r} is unknown; choose one of: {choices}.")
        if self.kind == "class+mean" and self.norm_after:
            raise ValueError(
                "pooling.kind='class+mean' has the norm before it: norm_after=True is not for it."
            )


class Pooling(nn.Module):
    """One vector for all tokens, ``(batch, tokens, dim) -> (batch, dim)``.

    Args:
        config: of the stack before.
        kind: as in :class:`PoolConfig`: "class" is the first token; "mean" and "attention" leave the
            prefix out; "class+mean" is ``2 * dim`` wide (DINOv2's linear classifier).
        prefix_tokens: class and register tokens, which stand first.
        norm: a norm after pooling.

    Attributes:
        dim: the width of the result.
    """

    def __init__(
        self, config: TransformerConfig, kind: str, prefix_tokens: int, norm: bool = False
    ) -> None:
        super().__init__()
        self.kind, self.prefix_tokens = kind, prefix_tokens
        self.dim = 2 * config.dim if kind == "class+mean" else config.dim
        self.attention = AttentionPooling(config) if kind == "attention" else None
        self.norm = make_norm(config) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, prefix + tokens, dim) -> (batch, dim)``."""
        if self.kind == "class":
            return self.norm(x[:, 0])
        first, x = x[:, 0], x[:, self.prefix_tokens :]
        if self.kind == "class+mean":
            return torch.cat([first, pool_mean(x)], dim=-1)
        return self.norm(pool_mean(x) if self.attention is None else self.attention(x))


class AttentionPooling(nn.Module):
    """A learned query attends to all tokens, then a feed-forward on a branch (Zhai et al. 2022; the
    "map" head of big_vision, SigLIP and timm).

    Args:
        config: of the stack before; attention and feed-forward are of its sizes.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        config = config.replace(
            context_dim=config.dim,
            norm_order="pre",
            layer_scale=None,
            qk_norm=None,
            condition_dim=None,
        )
        self.query = nn.Parameter(torch.empty(config.dim))
        self.attention = Attention(config, cross=True)
        self.feedforward = Residual(FeedForward(config), config, drop_path=0.0)
        nn.init.normal_(self.query, std=config.dim**-0.5)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, tokens, dim) -> (batch, dim)``."""
        query = self.query.expand(x.shape[0], 1, -1)
        return self.feedforward(self.attention(query, Shared(context=x)))[:, 0]


class Pooler(nn.Module):
    """A dense layer between the first token and its classes, ``(batch, dim) -> (batch, dim)``.

    Args:
        dim: of the stack before.
        activation: "tanh" (the code of Devlin et al. 2019), or an activation of the core: "relu" (that
            of Sanh et al. 2019), "gelu" (Clark et al. 2020).
        bias: of the dense layer.
        norm: after the activation (ModernBERT).

    Raises:
        ValueError: an unknown ``activation``.
    """

    def __init__(
        self, dim: int, activation: str, bias: bool = True, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        if activation not in POOLERS:
            choices = ", ".join(POOLERS)
            raise ValueError(f"pooler={activation!r} is unknown; choose one of: {choices}.")
        self.dense = nn.Linear(dim, dim, bias)
        self.activation = POOLERS[activation]
        self.norm = nn.Identity() if norm is None else norm
        init_linear(self.dense)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.activation(self.dense(x)))


def class_head(dim: int, num_classes: int, bias: bool = True) -> nn.Linear:
    """Logits of classes, ``(..., dim) -> (..., classes)``; begins at zero: all equally likely."""
    head = nn.Linear(dim, num_classes, bias)
    init_linear(head, 0.0)
    return head


def wide_class_head(dim: int, num_classes: int) -> nn.Sequential:
    """Classes behind a hidden layer twice as wide, with a norm (ViLT's answers to questions)."""
    hidden = nn.Linear(dim, 2 * dim)
    init_linear(hidden)
    return nn.Sequential(hidden, nn.LayerNorm(2 * dim), nn.GELU(), class_head(2 * dim, num_classes))
