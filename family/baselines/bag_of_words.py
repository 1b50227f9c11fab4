"""Logistic regression on counts of words and of pairs of words: a text without its order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.checks import check_value
from family.models.examples import TEXT
from family.models.member import member

FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)
"""Spreads ids over all 64 bits (Knuth 1973, section 6.4)."""


@member(
    task="TextClassification",
    reads=("text",),
    inputs=TEXT,
    heads={"TextRegression": {"num_classes": 1}},
    example={"vocab_size": 40, "num_classes": 3, "buckets": 64},
    classes=("weight", "bias"),
)
class BagOfWords(nn.Module):
    """Count n-grams, weigh each, add up: one linear layer on counts (Wang & Manning 2012 compare with it).

    With words as tokens, ``adam``, whose decay is that of L2, and of two classes a decay of ``2 /
    examples``, it comes to what scikit-learn's ``LogisticRegression`` makes of
    ``CountVectorizer(ngram_range=(1, ngrams))``. Each token has a weight for each class, those of longer n-grams are shared by all that
    fall into one of ``buckets`` (Weinberger et al. 2009).

    Args:
        vocab_size: tokens in the vocabulary.
        num_classes: of which one is to be told.
        ngrams: longest runs of tokens that are counted.
        buckets: weights of each class for runs of two tokens and more.

    Raises:
        ValueError: ``ngrams`` or ``buckets`` is no number of at least 1.
    """

    def __init__(
        self, vocab_size: int, num_classes: int = 2, ngrams: int = 2, buckets: int = 1 << 18
    ) -> None:
        super().__init__()
        for name, value in (("ngrams", ngrams), ("buckets", buckets)):
            check_value(name, value, (int,))
        self.vocab_size, self.num_classes = vocab_size, num_classes
        self.ngrams, self.buckets = ngrams, buckets
        rows = vocab_size + (buckets if ngrams > 1 else 0)
        # The loss is convex: where it begins does not matter.
        self.weight = nn.Parameter(torch.zeros(rows, num_classes))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def counted(self, input_ids: Tensor, mask: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        """The rows of the n-grams of each length, and which of them are of real tokens alone, both
        ``(batch, tokens - length + 1)``."""
        real = torch.ones_like(input_ids, dtype=torch.bool) if mask is None else mask
        rows, whole, mixed = input_ids, real, input_ids
        found = [(rows, whole)]
        for length in range(2, self.ngrams + 1):
            mixed = (mixed[:, :-1] ^ (mixed[:, :-1] >> 29)) * FACTOR + input_ids[:, length - 1 :]
            whole = whole[:, :-1] & real[:, length - 1 :]
            spread = (mixed * FACTOR) >> 32
            found.append((self.vocab_size + spread % self.buckets, whole))
        return found

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits ``(batch, classes)``.

        Args:
            input_ids: ``(batch, tokens)``.
            mask: ``(batch, tokens)``, True = a token; padding may stand left or right.
        """
        parts = [
            (F.embedding(rows, self.weight) * whole[..., None]).sum(1)
            for rows, whole in self.counted(input_ids, mask)
        ]
        return torch.stack(parts).sum(0) + self.bias
