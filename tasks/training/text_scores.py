"""How near texts are to those that are right: BLEU and chrF, cut as their language asks for, and the scores
of answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sacrebleu

from family.inputs.languages import plain
from tasks.training.answer_scores import normalised, token_f1

SCORES = ("exact_match", "f1", "accuracy", "bleu", "chrf")
LONGER = 4
"""Words of an answer of which BLEU can say something: its longest n-grams."""


def text_scores(
    made: Sequence[str], true: Sequence[str], language: str = ""
) -> dict[str, tuple[float, str]]:
    """sacreBLEU's scores of a corpus, and the signatures that say how each was computed."""
    references = [list(true)]
    metrics = {
        "bleu": bleu_of(language),
        "bleu_lowercase": bleu_of(language, lowercase=True),
        "chrf": sacrebleu.CHRF(),
    }
    return {
        name: (metric.corpus_score(list(made), references).score, str(metric.get_signature()))
        for name, metric in metrics.items()
    }


def bleu_of(language: str, **options: Any) -> sacrebleu.BLEU:
    """BLEU of texts in a language: of Chinese by its characters, of Japanese and Korean by their words where
    ``sacrebleu[ja]`` or ``sacrebleu[ko]`` is there, else by characters; all others by 13a, WMT's."""
    try:
        return sacrebleu.BLEU(trg_lang=plain(language), **options)
    except RuntimeError:  # what cuts words is not installed
        return sacrebleu.BLEU(tokenize="char", **options)


def exact_match(made: str, true: str) -> float:
    """1 where both are the same answer, as SQuAD's script compares them."""
    return float(normalised(made) == normalised(true))


def word_f1(made: str, true: str) -> float:
    """Of the words of two answers, how many they share; of two without any word 1."""
    return token_f1(true, made, impossible=True)


def made_scores(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """The scores of texts that were made, each with the true one: the means of :func:`exact_match` and
    :func:`word_f1`; ``accuracy``, how many are the same to the letter; chrF of all together, and BLEU
    where a true one has four words, as it is 0 of shorter ones.

    Returns:
        By the names in ``SCORES``; the first three from 0 to 1, the others to 100.
    """
    made, true = [one for one, _ in pairs], [one for _, one in pairs]
    found = {
        "exact_match": sum(exact_match(*pair) for pair in pairs) / len(pairs),
        "f1": sum(word_f1(*pair) for pair in pairs) / len(pairs),
        "accuracy": sum(one.strip() == other.strip() for one, other in pairs) / len(pairs),
        "chrf": sacrebleu.CHRF().corpus_score(made, [true]).score,
    }
    if max(len(one.split()) for one in true) >= LONGER:
        found["bleu"] = sacrebleu.BLEU().corpus_score(made, [true]).score
    return found
