"""Token ids become vectors."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from family.core.cache import Cache
from family.core.config import TransformerConfig
from family.core.init import init_linear, make_norm
from family.inputs.position import make_position


class Tokens(NamedTuple):
    """What a front-end makes of its input, for a stack to read."""

    x: Tensor
    """``(batch, tokens, dim)``."""
    mask: Tensor | None
    """``(batch, tokens)``, True = a token; None = all."""
    positions: Tensor | None
    """As :class:`~family.core.transformer.Transformer` takes them."""


class Vectors(NamedTuple):
    """What stands in the place of all tokens of one id: the patches of pictures, say."""

    token_id: int
    """May lie beyond the table."""
    values: Tensor
    """``(tokens of this id, dim)``, in the order in which they stand in the rows."""


class TextEmbedding(nn.Module):
    """Token embedding, position and token type where they are added to it, norm, dropout.

    Args:
        vocab_size: rows of the table.
        config: of the stack that follows: ``dim``, ``position``, ``max_tokens``, ``dropout``.
        scaled: multiply token embeddings by sqrt(dim) (Vaswani et al. 2017, section 3.4).
        token_types: rows of a table that tells the segments of a text apart (BERT); 0 is no table.
        norm: the config's norm over the sum, before dropout (BERT).
        embedding_dim: width of the tables; where it is not the stack's, a linear layer leads to that
            (ELECTRA). None is ``config.dim``.
        first_position: the number of the first position, of waves (M2M100 counts from 2).
        rounded: the factor of ``scaled`` takes the precision of the table first (Gemma: 55.4 is 55.5 in
            bfloat16).
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        scaled: bool = False,
        token_types: int = 0,
        norm: bool = False,
        embedding_dim: int | None = None,
        first_position: int = 0,
        rounded: bool = False,
    ) -> None:
        super().__init__()
        dim = embedding_dim or config.dim
        self.tokens = nn.Embedding(vocab_size, dim)
        # Scaled tables are drawn so that the product has unit variance, the size of a sinusoid.
        std = dim**-0.5 if scaled or config.init_std is None else config.init_std
        nn.init.normal_(self.tokens.weight, std=std)
        self.factor, self.rounded = math.sqrt(dim) if scaled else 1.0, rounded
        self.max_tokens = config.max_tokens
        self.position = make_position(config, dim, first_position, std)
        self.token_types = None
        if token_types:
            self.token_types = nn.Embedding(token_types, dim)
            nn.init.normal_(self.token_types.weight, std=std)
        self.norm: nn.Module = nn.Identity()
        if norm:
            self.norm = make_norm(config, dim)
        self.projection: nn.Module = nn.Identity()
        if dim != config.dim:
            self.projection = nn.Linear(dim, config.dim)
            init_linear(self.projection, config.init_std)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        token_types: Tensor | None = None,
        vectors: Vectors | None = None,
    ) -> Tensor:
        """``(batch, tokens)`` ids, ``(tokens)`` or ``(batch, tokens)`` positions -> ``(.., dim)``.

        Args:
            token_types: ``(batch, tokens)``; None is type 0 for all.
            vectors: in the place of rows of the table, as they are; positions are added to them too.

        Raises:
            ValueError: more tokens than the position table has rows, token types without a table of
                them, or not as many vectors as tokens that they stand for.
        """
        if self.position is not None and input_ids.shape[1] > self.max_tokens:
            raise ValueError(
                f"a sequence of {input_ids.shape[1]} tokens does not fit "
                f"max_tokens={self.max_tokens}."
            )
        places = None if vectors is None else input_ids == vectors.token_id
        x = self.tokens(input_ids if places is None else input_ids.masked_fill(places, 0))
        if self.factor != 1:
            x = x * (x.new_full((), self.factor) if self.rounded else self.factor)
        if vectors is not None and places is not None:
            x = scattered(x, places, vectors)
        if self.position is not None:
            x = x + self.position(positions).to(x.dtype)
        if self.token_types is not None:
            types = self.token_types
            x = x + (types.weight[0] if token_types is None else types(token_types))
        elif token_types is not None:
            raise ValueError("token_types need a table, but this model has token_types=0.")
        return self.projection(self.dropout(self.norm(x)))

    def read(self, input_ids: Tensor, mask: Tensor | None = None) -> Tokens:
        """``(batch, tokens)`` ids and mask (True = a token), as the front-end of a stack."""
        positions = token_positions(input_ids, mask)
        return Tokens(self(input_ids, positions), mask, positions)


def scattered(x: Tensor, places: Tensor, vectors: Vectors) -> Tensor:
    """``x (batch, tokens, dim)`` with vectors at the places, ``(batch, tokens)``, where True.

    Raises:
        ValueError: see :class:`TextEmbedding`; in compiled code it is not looked for.
    """
    token_id, values = vectors
    if not torch.compiler.is_compiling() and (count := int(places.sum())) != len(values):
        raise ValueError(
            f"{len(values)} vectors do not fit the {count} tokens of id {token_id} that they stand for: "
            "give one for each."
        )
    return x.masked_scatter(places[..., None], values.to(x.dtype))


def share_tables(model: nn.Module, source: TextEmbedding) -> None:
    """Let a model have the tables of another's embedding, and the norm over their sum, in place of its own
    (ELECTRA's generator those of its discriminator); so has a head that is tied to a table. What leads to
    the width of its stack stays its own.

    Args:
        model: has a :class:`TextEmbedding` called ``embedding``.

    Raises:
        ValueError: the two differ in a table, or in its shape.
    """
    ours, theirs = (tables_of(one) for one in (model.embedding, source))
    for name in sorted({*ours, *theirs}):
        shapes = [tuple(t[name].shape) if name in t else "none" for t in (ours, theirs)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"embedding.{name} is {shapes[0]} here and {shapes[1]} there.")
    shared = {id(parameter): theirs[name] for name, parameter in ours.items()}
    for module in model.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            if id(parameter) in shared:
                setattr(module, name, shared[id(parameter)])


def tables_of(embedding: Any) -> dict[str, nn.Parameter]:
    """The parameters of an embedding before its projection, by their names."""
    named = embedding.named_parameters()
    return {name: value for name, value in named if not name.startswith("projection.")}


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
        return cache.next_positions(tokens)
    if mask is None:
        return torch.arange(tokens, device=input_ids.device)
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def document_positions(documents: Tensor) -> Tensor:
    """Positions in packed rows, ``(batch, tokens)``: each document counts from 0.

    Args:
        documents: ``(batch, tokens)``, a number for each document; its tokens stand side by side.
    """
    columns = torch.arange(documents.shape[1], device=documents.device)
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return columns - (columns * first).cummax(1).values
