"""A bidirectional LSTM that classifies texts (Conneau et al. 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from family.baselines.lstm import LSTM, ScaledEmbedding
from family.heads.classifier import class_head
from family.heads.pooling import pool_max, pool_mean
from family.models.examples import TEXT
from family.models.member import member

POOLS = ("max", "mean", "last")


@member(
    task="TextClassification",
    reads=("text",),
    inputs=TEXT,
    example={"vocab_size": 40, "num_classes": 3, "dim": 16},
    variants=({"pool": "mean"}, {"pool": "last"}),
    classes=("head.",),
    heads={"TextRegression": {"num_classes": 1}},
)
class LSTMClassifier(nn.Module):
    """embed -> LSTM both ways -> one vector -> classes (section 3.2.2).

    Args:
        vocab_size: tokens in the vocabulary.
        num_classes: of which one is to be told.
        dim: width of the embedding and of what comes out of both directions together.
        depth: layers.
        dropout: on embeddings, between layers and before the head (Zaremba et al. 2014).
        pool: how tokens become one vector: "max" (section 3.2.2's choice) or "mean" over them, or
            "last", where each direction ended.

    Raises:
        ValueError: an unknown ``pool``, an odd ``dim``.
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int = 2,
        dim: int = 256,
        depth: int = 1,
        dropout: float = 0.2,
        pool: str = "max",
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool={pool!r} is unknown; choose one of: {', '.join(POOLS)}.")
        self.vocab_size, self.num_classes, self.pool = vocab_size, num_classes, pool
        self.embedding = ScaledEmbedding(vocab_size, dim)
        self.lstm = LSTM(dim, depth, dropout, bidirectional=True)
        self.dropout = nn.Dropout(dropout)
        self.head = class_head(dim, num_classes)

    def features(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """One vector for each text, ``(batch, tokens)`` -> ``(batch, dim)``."""
        outputs, (hidden, _) = self.lstm.read(self.dropout(self.embedding(input_ids)), mask)
        if self.pool == "last":
            return hidden[-1]
        return pool_mean(outputs, mask) if self.pool == "mean" else pool_max(outputs, mask)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits ``(batch, classes)``.

        Args:
            input_ids: ``(batch, tokens)``.
            mask: ``(batch, tokens)``, True = a token; padding may stand left or right.
        """
        return self.head(self.dropout(self.features(input_ids, mask)))
