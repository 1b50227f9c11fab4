"""Pairs of texts in one row, as encoders read them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

from tokenizers.processors import TemplateProcessing
from torch import Tensor

from family.inputs.encode import pad_rows, with_ends
from family.inputs.tokenizer import Tokenizer
from family.inputs.words import ends_of


class PairRows(NamedTuple):
    """Rows of two texts each, all ``(batch, tokens)``."""

    input_ids: Tensor
    mask: Tensor
    """True = a token."""
    token_types: Tensor
    """The segment of each token, by the tokenizer's template."""


def with_pairs(tokenizer: Tokenizer) -> Tokenizer:
    """Make a tokenizer part the texts of a pair, unless its own template does: of what it puts around one
    text, the end stands behind each, and the second is segment 1 (``<bos> a <eos> b <eos>``), as BERT's
    [CLS] a [SEP] b [SEP].

    Raises:
        ValueError: it has no special token to stand between two texts.
    """
    inner = with_ends(tokenizer).inner
    if inner.num_special_tokens_to_add(True):
        return tokenizer
    ends = ends_of(tokenizer)
    before, behind = ([str(inner.id_to_token(i)) for i in ids] for ids in ends)
    if not behind:
        raise ValueError("the tokenizer has no special token to stand between the texts of a pair.")
    single = [*before, "$A", *behind]
    inner.post_processor = TemplateProcessing(
        single=single,
        pair=[*single, "$B:1", *(f"{token}:1" for token in behind)],
        special_tokens=[(token, inner.token_to_id(token)) for token in {*before, *behind}],
    )
    return tokenizer


def encode_pairs(
    tokenizer: Tokenizer, texts: Sequence[str], pairs: Sequence[str], max_tokens: int | None = None
) -> PairRows:
    """Two texts a row, as :func:`with_pairs` has them, filled at the right; too long ones are cut as
    :meth:`~family.inputs.tokenizer.Tokenizer.encode_pairs` does.

    Args:
        pairs: the second text of each.
        max_tokens: None is the tokenizer's own limit, if it has one.

    Raises:
        ValueError: as many are not given, or the limit has no room for two texts.
    """
    limit = max_tokens or tokenizer.max_tokens
    check_room(with_pairs(tokenizer), limit)
    if len(texts) != len(pairs):
        raise ValueError(f"{len(texts)} texts but {len(pairs)} second ones: give as many.")
    rows = tokenizer.encode_pairs(list(zip(texts, pairs, strict=True)), limit)
    padded = pad_rows([ids for ids, _ in rows], -1)
    mask = padded >= 0
    types = pad_rows([types for _, types in rows], 0)
    return PairRows(padded.masked_fill(~mask, tokenizer.pad_id or 0), mask, types)


def check_room(tokenizer: Tokenizer, max_tokens: int | None) -> None:
    """Refuse a limit that leaves no token of either text.

    Raises:
        ValueError: see above.
    """
    around = tokenizer.inner.num_special_tokens_to_add(True)
    if max_tokens is not None and max_tokens < around + 2:
        raise ValueError(
            f"max_tokens={max_tokens} has no room for a pair of texts: {around} special tokens and a "
            f"token of each are {around + 2}."
        )


def segments(model: Any, token_types: Tensor | None) -> tuple[Tensor, ...]:
    """What a model takes of token types behind ids and mask: nothing, where it tells no two apart."""
    takes = "token_types" in inspect.signature(type(model).forward).parameters
    apart = takes and getattr(model, "token_types", 2) > 1
    return () if token_types is None or not apart else (token_types,)
