"""Token ids become vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from family.core.cache import Cache
from family.core.config import TransformerConfig
from family.core.position import LearnedPosition, SinusoidalPosition


class TextEmbedding(nn.Module):
    """Token embedding, position where it is added to embeddings, dropout.

    Args:
        vocab_size: rows of the table.
        config: of the stack that follows: ``dim``, ``position``, ``max_tokens``, ``dropout``.
        scaled: multiply token embeddings by sqrt(dim) (Vaswani et al. 2017, section 3.4).
    """

    def __init__(self, vocab_size: int, config: TransformerConfig, scaled: bool = False) -> None:
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
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """``(batch, tokens)`` ids, ``(tokens)`` or ``(batch, tokens)`` positions -> ``(.., dim)``.

        Raises:
            ValueError: more tokens than the position table has rows.
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
        return self.dropout(x)


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
        compiled = torch.compiler.is_compiling()
        first = cache.progress.column if compiled else cache.progress.length
        return cache.positions(first, tokens)
    if mask is None:
        return torch.arange(tokens, device=input_ids.device)
    return (mask.long().cumsum(1) - 1).clamp(min=0)
