"""Questions and texts to the spans of the texts that answer them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from family.inference.batches import TEXTS, chunks, device_of, most_tokens
from family.inputs.encode import UNLIMITED
from family.inputs.pair_windows import pad_windows, pair_windows
from family.inputs.text_pairs import segments

LONGEST = 30
"""Tokens of an answer, at most."""
STRIDE = 128


class Span(NamedTuple):
    """The likeliest answer in a window, or in all of a question's: its score (that of its begin and that of
    its end), that of no answer, the logarithm of the sum of ``exp`` of the scores of all spans, and the
    characters of the answer."""

    score: float
    none: float
    total: float
    start: int
    end: int

    @property
    def margin(self) -> float:
        """How much surer it is that there is no answer than that this is it."""
        return self.none - self.score

    def chance(self, answered: bool, maybe_none: bool) -> float:
        """How likely what is answered is among all spans and, where that may be, no answer."""
        if self.total == -math.inf:  # a text without a token of its own
            return 0.0 if answered else 1.0
        top, all_of = max(self.total, self.none), [self.total]
        all_of += [self.none] if maybe_none else []
        total = top + math.log(sum(math.exp(one - top) for one in all_of))
        return math.exp((self.score if answered else self.none) - total)


def best_spans(logits: Tensor, places: Tensor, longest: int = LONGEST) -> list[Span]:
    """The likeliest span of each row: all are compared that begin and end within the text, not in the
    question, and have ``longest`` tokens at most.

    Args:
        logits: ``(batch, tokens, 2)``; those of the first token are of no answer.
        places: ``(batch, tokens, 2)``, of each token its characters in the text, -1 of any other.
    """
    logits, outside = logits.float(), places[..., 0] < 0
    starts, ends = logits.masked_fill(outside[..., None], -math.inf).unbind(-1)
    padded = torch.nn.functional.pad(ends, (0, longest - 1), value=-math.inf)
    scores = (starts[..., None] + padded.unfold(1, longest, 1)).flatten(1)
    best, index = scores.max(1)
    first, total = index // longest, scores.logsumexp(1)
    last = first + index % longest
    rows = torch.arange(len(logits), device=logits.device)
    columns = best, logits[:, 0].sum(-1), total, places[rows, first, 0], places[rows, last, 1]
    found = zip(*(column.tolist() for column in columns), strict=True)
    return [
        Span(score, none, total, *((start, end) if score > -math.inf else (0, 0)))
        for score, none, total, start, end in found
    ]


def joined(windows: Sequence[Span]) -> Span:
    """The likeliest span of a question by those of its windows; that there is no answer is as likely as
    where it is least so."""
    best = max(windows, key=lambda span: span.score)
    total = torch.tensor([span.total for span in windows]).logsumexp(0)
    return best._replace(none=min(span.none for span in windows), total=float(total))


@torch.no_grad()
def answer_questions(
    model: Any,
    questions: Sequence[str],
    contexts: Sequence[str],
    batch_size: int = TEXTS,
    stride: int | None = None,
    longest: int = LONGEST,
    threshold: float | None = None,
) -> list[dict[str, Any]]:
    """Of each question the ``answer``, a span of its text; ``score``, how likely it is among all spans;
    ``start`` and ``end``, its first character in the text and the one behind its last; and ``no_answer``,
    how much surer than that is that there is none.

    Args:
        contexts: the text of each question.
        batch_size: windows at a time.
        stride: tokens that windows over a long text have in common; None is 128, or a quarter of a window
            where that is less.
        longest: tokens of an answer.
        threshold: above this ``no_answer`` the answer is "", and ``start`` and ``end`` are None; None
            answers every question.

    Raises:
        ValueError: not a text for each question; an empty one; a question that fills a window.
    """
    if len(questions) != len(contexts):
        raise ValueError(
            f"there are {len(questions)} questions but {len(contexts)} contexts: each question needs the "
            "text that it is asked of."
        )
    pairs = [
        (question.strip(), context) for question, context in zip(questions, contexts, strict=True)
    ]
    for i, (question, context) in enumerate(pairs):
        if not question or not context.strip():
            raise ValueError(f"{'context' if question else 'question'} {i} is empty.")
    most = most_tokens(model) or UNLIMITED
    stride = min(STRIDE, most // 4) if stride is None else stride
    found = enumerate(pair_windows(model.tokenizer, pairs, most, stride))
    windows = [(i, window) for i, some in found for window in some]
    spans: dict[int, list[Span]] = {i: [] for i in range(len(pairs))}
    for some in chunks(sorted(windows, key=lambda one: len(one[1].ids)), batch_size):
        rows = pad_windows([window for _, window in some], model.tokenizer.pad_id or 0)
        input_ids, mask, types, places = rows
        inputs = input_ids, mask, *segments(model, types)
        logits = model(*(x.to(device_of(model)) for x in inputs))
        for (i, _), span in zip(some, best_spans(logits.cpu(), places, longest), strict=True):
            spans[i].append(span)
    return [answered(joined(spans[i]), context, threshold) for i, (_, context) in enumerate(pairs)]


def answered(span: Span, context: str, threshold: float | None) -> dict[str, Any]:
    """An answer as plain values, see :func:`answer_questions`."""
    there = threshold is None or span.margin <= threshold
    return {
        "answer": context[span.start : span.end] if there else "",
        "score": round(span.chance(there, threshold is not None), 6),
        "start": span.start if there else None,
        "end": span.end if there else None,
        "no_answer": round(span.margin, 6),
    }
