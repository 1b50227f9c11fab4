"""Tokens become text while they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

BROKEN = "\N{REPLACEMENT CHARACTER}"
HELD = 8
"""Tokens that may be held back for the rest of a character, which has four bytes at most."""


def pieces(tokenizer: Any, tokens: Iterable[Any], before: Sequence[int] = ()) -> Iterator[str]:
    """What each token adds to a text, in whole characters.

    The pieces together are what ``decode`` of all tokens has more than ``decode`` of those before: a
    piece of SentencePiece that begins a word is then more than its letters, as it is not at the begin
    of a text. Of what is known only the end is decoded again, so that each token takes the same time.

    Args:
        tokens: ids, as they come.
        before: the ids of the text that goes on; none where a new one begins.
    """
    window = last_visible(tokenizer, before)
    shown, held = tokenizer.decode(window), 0
    for token in tokens:
        window.append(int(token))
        held += 1
        text = tokenizer.decode(window)
        if text.endswith(BROKEN) and held < HELD:
            continue
        yield text[len(shown) :]
        window = last_visible(tokenizer, window)
        shown, held = tokenizer.decode(window), 0
    yield tokenizer.decode(window)[len(shown) :]


def last_visible(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """The end of ids that a text can go on from: from the last token that shows something, as a decoder
    may treat the begin of a text otherwise; of what shows nothing after it, the last few."""
    for start in reversed(range(len(ids))):
        text = tokenizer.decode(ids[start:])
        if text.strip() and not text.startswith(BROKEN):
            return [ids[start], *ids[start + 1 :][-HELD:]]
    return list(ids[-HELD:])


def until(texts: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """The pieces of a text up to the first of some strings, which is left out.

    What may be the begin of such a string is held back until it is known whether it is.
    """
    held = ""
    for piece in texts:
        held += piece
        ends = [place for stop in stops if (place := held.find(stop)) >= 0]
        if ends:
            yield held[: min(ends)]
            return
        sure = len(held) - max((begun(held, stop) for stop in stops), default=0)
        yield held[:sure]
        held = held[sure:]
    yield held


def begun(text: str, stop: str) -> int:
    """How many characters of a string stand at the end of a text."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if text.endswith(stop[:n])), 0)
