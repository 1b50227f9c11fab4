"""Pairs of texts, a question and what it is asked of, in windows over the second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from family.inputs.encode import pad_rows
from family.inputs.text_pairs import with_pairs
from family.inputs.tokenizer import Tokenizer

NOWHERE = (-1, -1)


class PairWindow(NamedTuple):
    """A pair as a model reads it, with a part of the second text: the ids, the type of each (the
    tokenizer's own; BERT's 0 and 1), and its place in the second text, first character and the one behind
    the last, without the spaces around it; ``NOWHERE`` for all that is not of the second text."""

    ids: list[int]
    token_types: list[int]
    places: list[tuple[int, int]]

    def tokens_of(self, start: int, end: int) -> tuple[int, int] | None:
        """The first and the last token of characters of the second text; None where they are not all in
        this window."""
        inside = [i for i, place in enumerate(self.places) if place != NOWHERE]
        if not inside or start < self.places[inside[0]][0] or end > self.places[inside[-1]][1]:
            return None
        first = max(i for i in inside if self.places[i][0] <= start)
        last = min(i for i in inside if self.places[i][1] >= end)
        return first, max(first, last)


def pair_windows(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], max_tokens: int, stride: int
) -> Iterator[list[PairWindow]]:
    """The windows of each pair, in the tokenizer's own template: the first text stands whole in each, and
    of the second as much as fits, as transformers has it with ``truncation="only_second"`` and
    ``return_overflowing_tokens``.

    Args:
        max_tokens: of a window, all in all.
        stride: tokens of the second text that a window has in common with the one before.

    Raises:
        ValueError: a first text that leaves so little room that windows would not move on.
    """
    inner = with_pairs(tokenizer).inner
    sides = zip(*pairs, strict=True)
    firsts, seconds = (tokenizer.encodings([(text,) for text in texts]) for texts in sides)
    for (asked, text), first, second in zip(pairs, firsts, seconds, strict=True):
        # Not the places of the pair: what trims them would do so a second time (RoBERTa's).
        places = [trimmed(text, *place) for place in second.offsets]
        whole, count = inner.post_process(first, second), len(places)
        ids, types = tokenizer.ids_of(whole), whole.type_ids
        before = whole.sequence_ids.index(1) if count else len(ids)
        behind = before + count
        room = max_tokens - (len(ids) - count)
        if count > room and room <= stride:
            raise ValueError(
                f"{asked[:60]!r} has {len(first.ids)} tokens, which leaves {max(0, room)} of "
                f"max_tokens={max_tokens} for the text: it must be more than stride={stride}."
            )
        windows = []
        for begin in range(0, max(1, count - stride), max(1, room - stride)):
            part = slice(before + begin, min(before + begin + room, behind))
            inside = places[begin : begin + room]
            around = [NOWHERE] * before, [NOWHERE] * (len(ids) - behind)
            windows.append(
                PairWindow(
                    [*ids[:before], *ids[part], *ids[behind:]],
                    [*types[:before], *types[part], *types[behind:]],
                    [*around[0], *inside, *around[1]],
                )
            )
            if begin + room >= count:
                break
        yield windows


def pad_windows(
    windows: Sequence[PairWindow], pad_id: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Windows as a batch, filled at the right: ``input_ids``, ``mask`` (True = a token) and
    ``token_types``, ``(batch, tokens)``, and ``places (batch, tokens, 2)``."""
    ids = pad_rows([window.ids for window in windows], -1)
    types, places = torch.zeros_like(ids), torch.full((*ids.shape, 2), NOWHERE[0])
    for i, window in enumerate(windows):
        types[i, : len(window.ids)] = torch.tensor(window.token_types)
        places[i, : len(window.ids)] = torch.tensor(window.places)
    return ids.masked_fill(ids < 0, pad_id), ids >= 0, types, places


def trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Characters without the spaces around them, which some tokenizers give to a token."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
