"""Token ids become vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from family.core.cache import Cache
from family.core.config import TransformerConfig
from family.core.norm import make_norm
from family.core.position import LearnedPosition, SinusoidalPosition


class TextEmbedding(nn.Module):
    """Token embedding, position and token type where they are added to it, norm, dropout.

    Args:
        vocab_size: rows of the table.
        config: of the stack that follows: ``dim``, ``position``, ``max_tokens``, ``dropout``.
        scaled: multiply token embeddings by sqrt(dim) (Vaswani et al. 2017, section 3.4).
        token_types: rows of a table that tells the segments of a text apart (BERT); 0 is no table.
        norm: the config's norm over the sum, before dropout (BERT).
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        scaled: bool = False,
        token_types: int = 0,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, config.dim)
        # Scaled tables are drawn so that the product has unit variance, the size of a sinusoid.
        std = config.dim**-0.5 if scaled or config.init_std is None else config.init_std
        nn.init.normal_(self.tokens.weight, std=std)
        self.factor = math.sqrt(config.dim) if scaled else 1.0
        self.max_tokens = config.max_tokens
        self.position: nn.Module | None = None
        if config.position == "sinusoidal":
            self.position = SinusoidalPosition(config.max_tokens, config.dim)
        elif config.position == "learned":
            self.position = LearnedPosition(config.max_tokens, config.dim)
            nn.init.normal_(self.position.weight, std=std)
        self.token_types = None
        if token_types:
            self.token_types = nn.Embedding(token_types, config.dim)
            nn.init.normal_(self.token_types.weight, std=std)
        self.norm = make_norm(config.norm, config.dim, config.norm_eps) if norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, input_ids: Tensor, positions: Tensor, token_types: Tensor | None = None
    ) -> Tensor:
        """``(batch, tokens)`` ids, ``(tokens)`` or ``(batch, tokens)`` positions -> ``(.., dim)``.

        Args:
            token_types: ``(batch, tokens)``; None is type 0 for all.

        Raises:
            ValueError: more tokens than the position table has rows, or token types without a
                table of them.
        """
        if self.position is not None and input_ids.shape[1] > self.max_tokens:
            raise ValueError(
                f"a sequence of {input_ids.shape[1]} tokens does not fit "
                f"max_tokens={self.max_tokens}."
            )
        x = self.tokens(input_ids)
        if self.factor != 1:
            x = x * self.factor
        if self.position is not None:
            x = x + self.position(positions)
        if self.token_types is not None:
            types = self.token_types
            x = x + (types.weight[0] if token_types is None else types(token_types))
        elif token_types is not None:
            raise ValueError("token_types need a table, but this model has token_types=0.")
        return self.dropout(self.norm(x))


def token_positions(
    input_ids: Tensor, mask: Tensor | None = None, cache: Cache | None = None
) -> Tensor:
    """Positions that do not count padding, wherever it stands.

    Args:
        input_ids: ``(batch, tokens)``.
        mask: ``(batch, tokens)``, True = a token.

    Returns:
        ``(tokens)``, or ``(batch, tokens)`` where rows differ.
    """
    tokens = input_ids.shape[1]
    if cache is not None:
        return cache.positions(cache.progress.column, tokens)
    if mask is None:
        return torch.arange(tokens, device=input_ids.device)
    return (mask.long().cumsum(1) - 1).clamp(min=0)
