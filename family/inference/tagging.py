"""Words and their tags: the spans of a text, with where they stand in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from family.inference.batches import TEXTS, chunks, class_names, device_of, most_tokens
from family.inference.spans import mark_spans, spans_of
from family.inputs.encode import UNLIMITED, pad_rows, with_ends
from family.inputs.words import encode_words, ends_of, find_words, windows


def tag_texts(
    model: Any, texts: Sequence[str], batch_size: int = TEXTS, stride: int | None = None
) -> list[list[dict[str, Any]]]:
    """Of each text its spans, in their order: ``word`` (the text of the span), ``label``, ``score``,
    and ``start`` and ``end``, its first character and the one behind its last. Where tags mark no
    spans (parts of speech), each word is one.

    The text is cut into words by :func:`~family.inputs.words.find_words`. The score is the mean over
    the words of a span of how likely their tags are. Of a text that is too long no word is left
    out: it is read in windows, see :func:`~family.inputs.words.windows`.

    Args:
        batch_size: texts, or windows, at a time.
        stride: tokens from one window to the next; None is half a window.
    """
    places = [find_words(text) for text in texts]
    words = [[text[a:b] for a, b in spots] for text, spots in zip(texts, places, strict=True)]
    found = []
    for text, spots, chances in zip(
        texts, places, tag_words(model, words, batch_size, stride), strict=True
    ):
        names = class_names(model, chances.shape[1]) if len(chances) else []
        scores, ids = chances.max(-1) if len(chances) else (chances, chances)
        tags = [names[int(i)] for i in ids]
        spans = []
        for label, first, last in spans_of(tags, mark_spans(names)):
            start, end = spots[first][0], spots[last - 1][1]
            sure = round(float(scores[first:last].mean()), 6)
            word = text[start:end]
            spans.append(dict(word=word, label=label, score=sure, start=start, end=end))
        found.append(spans)
    return found


@torch.no_grad()
def tag_words(
    model: Any,
    texts: Sequence[Sequence[str]],
    batch_size: int = TEXTS,
    stride: int | None = None,
) -> list[Tensor]:
    """Texts that are words already -> of each how likely the tags of its words are, ``(words, tags)``;
    of one without words ``(0, 0)``. Arguments as of :func:`tag_texts`."""
    tokenizer = with_ends(model.tokenizer)
    before, behind = ends_of(tokenizer)
    most = max(1, (most_tokens(model) or UNLIMITED) - len(before) - len(behind))
    rows: list[tuple[int, int, list[int], list[int]]] = []
    for i, words in enumerate(texts):
        pieces = encode_words(tokenizer, words)
        for window in windows([len(piece) for piece in pieces], most, stride):
            inside, firsts = row_of(pieces[window.first : window.last], most)
            own = firsts[window.own - window.first : window.end - window.first]
            places = [place + len(before) for place in own]
            rows.append((i, window.own, [*before, *inside, *behind], places))
    found: list[list[Tensor]] = [[] for _ in texts]
    order = sorted(rows, key=lambda row: len(row[2]))
    answers: dict[tuple[int, int], Tensor] = {}
    for some in chunks(order, batch_size):
        padded = pad_rows([row[2] for row in some], -1)
        mask = padded >= 0
        ids = padded.masked_fill(~mask, tokenizer.pad_id or 0)
        logits = model(ids.to(device_of(model)), mask.to(device_of(model))).float()
        chances = logits.softmax(-1).cpu()
        for (i, first, _, places), row in zip(some, chances, strict=True):
            answers[i, first] = row[places]
    for (i, _), part in sorted(answers.items(), key=lambda one: one[0]):
        found[i].append(part)
    return [torch.cat(parts) if parts else torch.empty(0, 0) for parts in found]


def row_of(pieces: Sequence[Sequence[int]], most: int) -> tuple[list[int], list[int]]:
    """The words of a window as one row of ids, and where each of them begins; of a word that alone
    has more than ``most`` pieces, the first ones."""
    row: list[int] = []
    firsts = []
    for piece in pieces:
        firsts.append(len(row))
        row += piece[:most]
    return row, firsts
