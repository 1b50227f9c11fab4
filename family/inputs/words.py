"""Texts in words: where these stand, their pieces, and windows over texts that are too long."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from family.inputs.tokenizer import Tokenizer

UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0e7f"
SINGLE = re.compile(f"[{UNSPACED}]")
"""Of scripts without spaces (kana, CJK, Thai): each is a word."""
WORD = re.compile(
    r"https?://\S+"
    rf"|{SINGLE.pattern}"
    rf"|[@#]?[^\W{UNSPACED}]+(?:['’.\-][^\W{UNSPACED}]+)*"
    r"|\S"
)
"""A link; a word, with apostrophes, dots and hyphens inside it (don't, U.S, e-mail), @name and #tag; or a
mark by itself."""


class Window(NamedTuple):
    """The words ``first`` to ``last`` of a text (without the last), and among them those, ``own`` to
    ``end``, that are read off there: each word of a text in one window, where it sees most."""

    first: int
    last: int
    own: int
    end: int


def find_words(text: str) -> list[tuple[int, int]]:
    """The places of the words of a text: first character, and the one behind the last."""
    found: list[tuple[int, int]] = []
    for match in WORD.finditer(text):
        first, last = match.span()
        if found and found[-1][1] == first and goes_on(text, found[-1][0], first):
            found[-1] = found[-1][0], last
        else:
            found.append((first, last))
    return found


def goes_on(text: str, first: int, at: int) -> bool:
    """Whether the word that begins at ``first`` has not ended at ``at``: accents and vowel signs that are
    characters of their own (decomposed é, Hindi, vowelled Arabic) are no letters to a regular expression."""
    before, own = text[at - 1], text[at]
    if not text[first].isalnum() or SINGLE.match(before) or SINGLE.match(own):
        return False
    return is_mark(own) or (is_mark(before) and own.isalnum())


def is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


def encode_words(tokenizer: Tokenizer, words: Sequence[str]) -> list[list[int]]:
    """The pieces of each word as inside of a text, without special tokens, one at least: what a
    tokenizer makes nothing of is its unknown token.

    Where a space belongs to the word behind it (GPT-2, RoBERTa), each word has one before it, as
    with transformers' ``is_split_into_words`` and ``add_prefix_space``.
    """
    alone, twice = tokenizer.encode("a"), tokenizer.encode("a a")
    space = "" if twice == alone * 2 else " "
    rows = tokenizer.encode_batch([f"{space}{word}" for word in words]) if words else []
    nothing = next((i for i in (tokenizer.unk_id, tokenizer.eos_id) if i is not None), 0)
    return [row or [nothing] for row in rows]


def ends_of(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before a text, and those behind it."""
    bare, whole = tokenizer.encode("a"), tokenizer.encode("a", special_tokens=True)
    at = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return whole[:at], whole[at + len(bare) :]


def windows(lengths: Sequence[int], most: int, stride: int | None = None) -> list[Window]:
    """Windows of whole words over a text, each word the own one of the window in which it has most
    context: the smaller of what stands before it and behind it there (as BERT reads SQuAD).

    Args:
        lengths: pieces of each word; one that has more than ``most`` counts as so many.
        most: pieces of a window.
        stride: pieces from the begin of a window to that of the next, about; None is half of ``most``.
    """
    starts = [0, *accumulate(min(length, most) for length in lengths)]
    count, step = len(lengths), min(most, stride or max(1, most // 2))
    spans: list[tuple[int, int]] = []
    first = 0
    while count:
        last = first + 1
        while last < count and starts[last + 1] - starts[first] <= most:
            last += 1
        spans.append((first, last))
        if last == count:
            break
        ahead = first + 1
        while ahead < last and starts[ahead] - starts[first] < step:
            ahead += 1
        first = ahead
    found = []
    own = 0
    for i, (first, last) in enumerate(spans):
        end = last
        if i + 1 < len(spans):
            begin = spans[i + 1][0]
            # Behind this word, the next window's left context is the larger of the two.
            while end > begin and starts[last] - starts[end] < starts[end - 1] - starts[begin]:
                end -= 1
        end = max(end, own)
        found.append(Window(first, last, own, end))
        own = end
    return [window for window in found if window.own < window.end]
