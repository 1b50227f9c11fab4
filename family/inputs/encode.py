"""Texts to rows of ids, as each kind of model reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from family.inputs.tokenizer import Tokenizer

UNLIMITED = 1 << 30
"""Tokens of a text that nothing cuts."""


def with_ends(tokenizer: Tokenizer) -> Tokenizer:
    """Make a tokenizer put ``<bos>`` before a text and ``<eos>`` behind, unless it adds its own.

    The first token then stands for the whole text, as BERT's [CLS] (Devlin et al. 2019, section 3).
    """
    inner = tokenizer.inner
    named = tokenizer.specials
    if {"bos", "eos"} <= named.keys() and not inner.num_special_tokens_to_add(False):
        ends = [named["bos"], named["eos"]]
        inner.post_processor = TemplateProcessing(
            single=[ends[0], "$A", ends[1]],
            special_tokens=[(token, inner.token_to_id(token)) for token in ends],
        )
    return tokenizer


def encode_captions(
    tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int
) -> tuple[Tensor, Tensor]:
    """Texts with what the tokenizer puts around each; where that is nothing, with ``<bos>`` before and
    ``<eos>`` behind, if it has them. Of one that is too long the end is cut off, not what is around it.

    Returns:
        ids ``(texts, tokens)``, and their mask.
    """
    bos, eos = tokenizer.bos_id, tokenizer.eos_id
    if tokenizer.inner.num_special_tokens_to_add(False) or bos is None or eos is None:
        return tokenizer.batch(list(texts), max_tokens)
    rows = [[bos, *row[: max_tokens - 2], eos] for row in tokenizer.encode_batch(list(texts))]
    padded = pad_rows(rows, -1)
    mask = padded >= 0
    return padded.masked_fill(~mask, tokenizer.pad_id or 0), mask


def encode_sources(
    tokenizer: Tokenizer, texts: Sequence[str], parse_special: bool = False
) -> list[list[int]]:
    """Ids of texts that are to be translated: with what the tokenizer puts around each, where ``<eos>``
    is part of that (BART, NLLB), or with ``<eos>`` behind.

    Args:
        parse_special: see :meth:`~family.inputs.tokenizer.Tokenizer.encode`.
    """
    if tokenizer.eos_id in tokenizer.encode("", special_tokens=True):
        return tokenizer.encode_batch(texts, True, parse_special)
    assert tokenizer.eos_id is not None
    rows = tokenizer.encode_batch(texts, parse_special=parse_special)
    return [[*ids, tokenizer.eos_id] for ids in rows]


def encode_prompt(tokenizer: Tokenizer, prompt: str, parse_special: bool = False) -> list[int]:
    """A prompt as a model was trained to read the begin of a text, and without an end.

    Args:
        parse_special: see :meth:`~family.inputs.tokenizer.Tokenizer.encode`.
    """
    return encode_prompts(tokenizer, [prompt], parse_special)[0]


def encode_prompts(
    tokenizer: Tokenizer, prompts: Sequence[str], parse_special: bool = False
) -> list[list[int]]:
    """As :func:`encode_prompt`, for many in parallel."""
    rows = tokenizer.encode_batch(prompts, special_tokens=True, parse_special=parse_special)
    return [row[:-1] if row[-1:] == [tokenizer.eos_id] and len(row) > 1 else row for row in rows]


def pad_rows(rows: list[list[int]], value: int) -> Tensor:
    """Rows of unequal length to one ``(rows, longest)``, filled at the right."""
    padded = torch.full((len(rows), max(map(len, rows))), value)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = torch.tensor(row)
    return padded
