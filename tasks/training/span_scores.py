"""Precision, recall and F1 of spans, as conlleval counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from family.inference.spans import spans_of
from tasks.training.by_class import share

Texts = Iterable[tuple[Sequence[str], Sequence[str]]]
"""Of each text the true tags of its words, and those that were made."""


class SpanCounts:
    """How many spans there are of each type, how many were made, and how many of these are right: of
    the same type, begin and end.

    Args:
        texts: see :data:`Texts`.
        marked: see :func:`~family.inference.spans.spans_of`.
    """

    def __init__(self, texts: Texts, marked: bool = True) -> None:
        self.true, self.made, self.both = Counter[str](), Counter[str](), Counter[str]()
        for true, made in texts:
            spans = set(spans_of(true, marked)), set(spans_of(made, marked))
            counts = (self.true, self.made, self.both)
            for counter, found in zip(counts, (*spans, spans[0] & spans[1]), strict=True):
                counter.update(span.label for span in found)

    @property
    def types(self) -> list[str]:
        """Of the true spans and of those that were made."""
        return sorted(self.true.keys() | self.made.keys())

    def scores(self) -> dict[str, float]:
        """``precision``, ``recall`` and ``f1`` over all spans, and ``f1_TYPE`` of each type; 0 where there
        is nothing to divide by, as conlleval has it."""
        true, made, both = (counts.total() for counts in (self.true, self.made, self.both))
        scores = {
            "precision": both / max(1, made),
            "recall": both / max(1, true),
            "f1": 2 * both / max(1, true + made),
        }
        for name in self.types:
            whole = self.true[name] + self.made[name]
            scores[f"f1_{name}"] = 2 * self.both[name] / max(1, whole)
        return scores

    def table(self) -> list[dict[str, Any]]:
        """A row for each type, as :func:`~tasks.training.by_class.class_table` has it."""
        rows = []
        for name in self.types:
            true, made, both = self.true[name], self.made[name], self.both[name]
            row = {"class": name, "precision": share(both, made), "recall": share(both, true)}
            rows.append({**row, "f1": share(2 * both, true + made), "true": true, "made": made})
        return rows
