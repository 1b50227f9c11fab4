"""How near sentences about pictures are to those that people wrote: BLEU-4 and CIDEr-D as coco-caption
computes them, which need no Java here."""

from __future__ import annotations

import html
import math
import re
from collections import Counter
from collections.abc import Sequence

import sacrebleu

ORDER = 4
"""Words of the longest n-grams."""
SIGMA = 6.0
"""Of the penalty on another length."""
QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})
CLITIC = re.compile(r"(?<=\w)('s|'re|'ve|'ll|'d|'m|n't)\b")
WORD = re.compile(
    r"'(?:s|re|ve|ll|d|m)\b|n't\b|'\d\ds?\b|\d+(?:[.,:]\d+)+|(?:[a-z]\.){2,}|(?:mrs?|ms|dr|st|jr|sr)\."
    r"|\w+(?:[-./'&]\w+)*|[?!]{2,}|[^\w\s]"
)
DROPPED = {*"'`.?!,:;-\"", "''", "``", "--", "...", "…"}
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
"""As the published script leaves them, whose list of what is to be dropped has them in capitals."""
Grams = Counter[tuple[str, ...]]


def words(text: str) -> str:
    """Lower-cased and cut as the Penn Treebank does, without marks of punctuation: "it's a t-shirt." is "it 's a
    t-shirt"; as the published script cuts all but one in a
    thousand of Multi30k's sentences."""
    split = CLITIC.sub(r" \1", html.unescape(text).lower().translate(QUOTES))
    return " ".join(BRACKETS.get(one, one) for one in WORD.findall(split) if one not in DROPPED)


def n_grams(text: str) -> list[Grams]:
    """How often each run of 1 to ``ORDER`` words stands in a text, by its length."""
    found = text.split()
    return [
        Counter(tuple(found[i : i + n]) for i in range(len(found) - n + 1))
        for n in range(1, ORDER + 1)
    ]


def cider(made: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each sentence, 0 to 10 (Vedantam et al. 2015, section 4, with the clipping and the penalty of
    section 7): the cosine of n-gram counts, weighted by how few pictures' references have them.

    Args:
        made: one a picture, cut into words by :func:`words`.
        references: those of each picture, cut alike. All pictures together are the corpus: of one alone
            every score is 0.

    Raises:
        ValueError: a picture without references.
    """
    if not all(references):
        place = next(i for i, some in enumerate(references) if not some)
        raise ValueError(f"picture {place} has no reference: CIDEr compares with one at least.")
    cooked = [[n_grams(one) for one in some] for some in references]
    pictures = Counter[tuple[str, ...]]()
    for some in cooked:
        pictures.update({gram for one in some for counts in one for gram in counts})
    logs = {gram: math.log(count) for gram, count in pictures.items()}
    whole = math.log(len(references))

    def weighted(counts: Grams) -> tuple[dict[tuple[str, ...], float], float]:
        vector = {gram: n * (whole - logs.get(gram, 0.0)) for gram, n in counts.items()}
        return vector, math.sqrt(sum(value * value for value in vector.values()))

    scores = []
    for text, some in zip(made, cooked, strict=True):
        mine = n_grams(text)
        ours = [weighted(counts) for counts in mine]
        total = 0.0
        for one in some:
            longer = mine[1].total() - one[1].total()  # in pairs of words, as published
            penalty = math.exp(-(longer**2) / (2 * SIGMA**2))
            for (vector, norm), counts in zip(ours, one, strict=True):
                other, other_norm = weighted(counts)
                if norm and other_norm:
                    shared = (min(v, other[g]) * other[g] for g, v in vector.items() if g in other)
                    total += penalty * sum(shared) / (norm * other_norm)
        scores.append(10 * total / (ORDER * len(some)))
    return scores


def caption_scores(
    made: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, tuple[float, str]]:
    """``bleu`` (BLEU-4, 0 to 100) and ``cider`` (the mean CIDEr-D, 0 to 10) of all pictures, and the signatures
    that say how each was computed.

    Args:
        made: a sentence a picture, as it was written.
        references: all that are known of each.
    """
    hypotheses, true = list(map(words, made)), [list(map(words, some)) for some in references]
    most = max(map(len, true))
    # Of a picture with fewer the first stands again, which changes nothing.
    columns = [[some[i] if i < len(some) else some[0] for some in true] for i in range(most)]
    bleu = sacrebleu.BLEU(tokenize="none", smooth_method="none", force=True)
    score = bleu.corpus_score(hypotheses, columns).score
    each = cider(hypotheses, true)
    how = f"words:ptb-like|lower|nrefs:{most}|pictures:{len(true)}"
    return {
        "bleu": (score, f"{bleu.get_signature()}|{how}"),
        "cider": (sum(each) / len(each), f"cider-d|n:{ORDER}|sigma:{SIGMA:g}|idf:references|{how}"),
    }
