"""BLEU and chrF of texts, cut as their language asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sacrebleu

from family.inputs.languages import plain


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
