"""Which tokens of a text are hidden, and behind what (Devlin et al. 2019, section 3.1)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers.models import WordLevel, WordPiece

from family.inputs.tokenizer import Tokenizer
from family.losses.language_model import IGNORE

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]
RATE = 0.15
"""Of the tokens that are hidden."""
MASKED, RANDOM = 0.8, 0.1
"""Of these, that become the mask token, and that become any other; the rest stays."""


class Vocabulary(NamedTuple):
    """What masking asks of a tokenizer, by the ids of its tokens."""

    mask_id: int
    plain: Ids
    """The tokens that are not special: they alone are hidden, or put in place of others."""
    special: Flags
    """``(vocab,)``."""
    begins: Flags
    """``(vocab,)``: its first character stands within a word."""
    opens: Flags
    """``(vocab,)``: its last character does, so that the next token may go on with the word."""


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """Of a tokenizer with a mask token."""
    assert tokenizer.mask_id is not None
    size = tokenizer.vocab_size
    special = np.zeros(size, dtype=bool)
    special[[i for i in tokenizer.special_ids if i < size]] = True
    begins, opens = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    text_of = reader(tokenizer)
    for token, i in tokenizer.inner.get_vocab().items():
        if i < size and not special[i]:
            text = text_of(token)
            begins[i], opens[i] = in_word(text[:1]), in_word(text[-1:])
    return Vocabulary(tokenizer.mask_id, np.flatnonzero(~special), special, begins, opens)


def reader(tokenizer: Tokenizer) -> Callable[[str], str]:
    """What makes of a token the text that it stands for, with what is before the first of a word."""
    model = tokenizer.inner.model
    if isinstance(model, WordPiece):
        prefix = model.continuing_subword_prefix
        return lambda t: t.removeprefix(prefix) if t.startswith(prefix) else f" {t}"
    if isinstance(model, WordLevel):
        return lambda t: f" {t}"
    parts = json.loads(tokenizer.inner.to_str())
    if '"ByteLevel"' in json.dumps([parts["pre_tokenizer"], parts["decoder"]]):
        decode = tokenizer.inner.decoder.decode
        return lambda t: decode([t])
    return lambda t: t


def in_word(character: str) -> bool:
    """Whether it stands within words; part of a character does."""
    return character.isalnum() or character in ("_", "\N{REPLACEMENT CHARACTER}")


def words_of(ids: Ids, texts: Ids, vocabulary: Vocabulary, whole_words: bool) -> Ids:
    """The number of each token's word, -1 for special tokens; ``(tokens,)``.

    A word is a run of letters, digits and underscores; what stands between words is by itself.

    Args:
        ids: of a row, ``(tokens,)``.
        texts: the number of each token's text, in which its word ends.
        whole_words: else each token is a word.
    """
    if whole_words:
        goes_on = vocabulary.begins[ids[1:]] & vocabulary.opens[ids[:-1]]
        goes_on &= texts[1:] == texts[:-1]
        words = np.concatenate([[0], (~goes_on).cumsum()])
    else:
        words = np.arange(len(ids))
    return np.where(vocabulary.special[ids], -1, words)


def chosen(words: Ids, random: np.random.Generator) -> Flags:
    """Which tokens are hidden: words in random order, until they are 15 % of the tokens, as near as
    whole words come; one word at least, where there is any."""
    names, sizes = np.unique(words[words >= 0], return_counts=True)
    order = random.permutation(len(names))
    before = sizes[order].cumsum() - sizes[order] / 2
    wanted = before <= max(1, round(RATE * int(sizes.sum())))
    wanted[:1] = True
    return np.isin(words, names[order[wanted]])


def masked(
    ids: Ids,
    words: Ids,
    vocabulary: Vocabulary,
    random: np.random.Generator,
    shares: tuple[float, float] = (MASKED, RANDOM),
) -> tuple[Ids, Ids]:
    """A row with tokens hidden, and as labels what stood there, ``IGNORE`` elsewhere.

    Args:
        words: as :func:`words_of` gives them.
        shares: of the hidden tokens, that become the mask token, and that become any other.
    """
    hidden = chosen(words, random)
    draw, other = random.random(len(ids)), random.choice(vocabulary.plain, len(ids))
    gap, swapped = shares
    seen = np.where(hidden & (draw < gap), vocabulary.mask_id, ids)
    seen = np.where(hidden & (draw >= gap) & (draw < gap + swapped), other, seen)
    return seen, np.where(hidden, ids, IGNORE)
