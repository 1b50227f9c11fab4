"""Exact match and F1 of answers, as the scripts of SQuAD 1.1 and 2.0 compute them (Rajpurkar et al. 2016,
2018): the best over all true answers, by their English normalisation whatever the language."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

ARTICLE = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """Lower-cased, without punctuation, articles and spaces that are more than one."""
    return " ".join(ARTICLE.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def token_f1(true: str, made: str, impossible: bool = False) -> float:
    """F1 of the words of one answer.

    Args:
        impossible: as of SQuAD 2.0, where no answer is right for none, and for nothing else.
    """
    words, others = normalised(true).split(), normalised(made).split()
    if impossible and not (words and others):
        return float(words == others)
    same = (Counter(words) & Counter(others)).total()
    return 2 * same / (len(words) + len(others)) if same else 0.0


def answer_scores(
    made: str, answers: Sequence[str], impossible: bool = False
) -> tuple[float, float]:
    """``(exact match, F1)`` of an answer, each 0 to 1.

    Args:
        answers: the true ones; none where the text has none.
        impossible: see :func:`token_f1`; a true answer of articles and punctuation alone counts for
            nothing then.
    """
    true = [answer for answer in answers if normalised(answer)] if impossible else list(answers)
    true = true or [""]
    exact = max(normalised(answer) == normalised(made) for answer in true)
    return float(exact), max(token_f1(answer, made, impossible) for answer in true)


class Judged(NamedTuple):
    """A question: how much surer it is that there is no answer than that it is the best span
    (``margin``), the scores of that span, and whether there is an answer."""

    margin: float
    exact: float
    f1: float
    answerable: bool

    def at(self, threshold: float | None) -> tuple[float, float]:
        """Exact match and F1, where a ``margin`` above the threshold is taken for no answer."""
        if threshold is None or self.margin <= threshold:
            return self.exact, self.f1
        return float(not self.answerable), float(not self.answerable)


def mean_scores(judged: Sequence[Judged], threshold: float | None) -> dict[str, float]:
    """``exact_match`` and ``f1`` over all questions; where some have no answer also over those with one,
    ``exact_match_answerable`` and ``f1_answerable``, and the share of the others that is left without,
    ``accuracy_unanswerable`` (HasAns and NoAns of SQuAD 2.0's script)."""

    def mean(rows: Sequence[Judged], which: int) -> float:
        return sum(row.at(threshold)[which] for row in rows) / max(1, len(rows))

    scores = {"exact_match": mean(judged, 0), "f1": mean(judged, 1)}
    there = [row for row in judged if row.answerable]
    if len(there) == len(judged):
        return scores
    scores |= {"exact_match_answerable": mean(there, 0), "f1_answerable": mean(there, 1)}
    return {**scores, "accuracy_unanswerable": mean([r for r in judged if not r.answerable], 0)}


def best_threshold(judged: Sequence[Judged], which: str = "f1") -> tuple[float, float]:
    """The best score that any threshold would have, "exact" or "f1", and the least that has it: as
    SQuAD 2.0's script finds it, whose threshold of no answers at all is 0."""
    best = score = float(sum(not row.answerable for row in judged))
    threshold = 0.0
    for row in sorted(judged, key=lambda row: row.margin):
        score += getattr(row, which) if row.answerable else -1.0
        if score > best:
            best, threshold = score, row.margin
    return best / max(1, len(judged)), threshold
