"""BERT: a stack that reads both ways (Devlin et al. 2019); RoBERTa and DistilBERT too."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.heads.classifier import Pooler, class_head
from family.heads.masked import MaskedHead
from family.heads.pooling import pool_first
from family.inputs.text import TextEmbedding, token_positions
from family.models.member import member, split_overrides


@member
class BERT(nn.Module):
    """embed -> Transformer -> the masked tokens, or classes of the whole (section 3, figure 1).

    Args:
        vocab_size: tokens in the vocabulary.
        config: the stack, not causal; of "post" norm order in everything published.
        num_classes: 0 leaves the class head out; 2 beside a masked head are BERT's "is the next
            sentence" and "is not".
        token_types: segments that the embedding tells apart; 0 is none (DistilBERT).
        masked_head: predict masked tokens.
        pooler: the dense layer between the first token and the classes: "tanh" (BERT, RoBERTa),
            "relu" (DistilBERT), or None for no such layer.
        head_dropout: before the classes' linear layer.

    Raises:
        ValueError: a causal config, or one with cross-attention; an unknown ``pooler``.
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        *,
        num_classes: int = 0,
        token_types: int = 2,
        masked_head: bool = True,
        pooler: str | None = "tanh",
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if config.causal or config.cross_attention:
            raise ValueError(
                "BERT reads both ways, and one text alone: its config needs causal=False and "
                "cross_attention=False."
            )
        self.config, self.vocab_size, self.num_classes = config, vocab_size, num_classes
        self.embedding = TextEmbedding(vocab_size, config, token_types=token_types, norm=True)
        self.transformer = Transformer(config)
        self.masked_head = MaskedHead(config, self.embedding.tokens) if masked_head else None
        self.pooler = None if pooler is None else Pooler(config.dim, pooler)
        self.head_dropout = nn.Dropout(head_dropout)
        self.class_head = class_head(config.dim, num_classes) if num_classes else None

    def encode(
        self, input_ids: Tensor, mask: Tensor | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        """All tokens, ``(batch, tokens)`` -> ``(batch, tokens, dim)``.

        Args:
            mask: ``(batch, tokens)``, True = a token; padding may stand left or right.
            token_types: ``(batch, tokens)``, the segment of each token; None is 0 for all.
        """
        positions = token_positions(input_ids, mask)
        x = self.embedding(input_ids, positions, token_types)
        return self.transformer(x, mask=mask, positions=positions)

    def masked_logits(self, tokens: Tensor) -> Tensor:
        """What stood there: ``(..., dim)``, all tokens or only the masked ones -> ``(..., vocab)``."""
        if self.masked_head is None:
            raise ValueError(
                "this BERT has no head for masked tokens: build it with masked_head=True."
            )
        return self.masked_head(tokens)

    def pooled(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The first token through the pooler, ``(batch, tokens, dim)`` -> ``(batch, dim)``.

        Args:
            mask: ``(batch, tokens)``; needed only where padding stands left.
        """
        first = pool_first(tokens, mask)
        return first if self.pooler is None else self.pooler(first)

    def class_logits(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, tokens, dim)`` -> ``(batch, classes)``; ``mask`` as in :meth:`pooled`."""
        if self.class_head is None:
            raise ValueError("this BERT has no head for classes: build it with num_classes over 0.")
        return self.class_head(self.head_dropout(self.pooled(tokens, mask)))

    def forward(
        self, input_ids: Tensor, mask: Tensor | None = None, token_types: Tensor | None = None
    ) -> Tensor:
        """Logits ``(batch, tokens, vocab)`` of the masked head; without one, of the classes
        ``(batch, classes)``; without either, :meth:`encode`'s tokens. Arguments as there.
        """
        tokens = self.encode(input_ids, mask, token_types)
        if self.masked_head is not None:
            return self.masked_logits(tokens)
        return tokens if self.class_head is None else self.class_logits(tokens, mask)


BASE: dict[str, Any] = {
    "dim": 768,
    "depth": 12,
    "heads": 12,
    "norm_order": "post",
    "norm_eps": 1e-12,
    "position": "learned",
    "max_tokens": 512,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "head_dropout": 0.1,
}


def _bert(vocab_size: int, published: dict[str, Any], overrides: dict[str, Any]) -> BERT:
    if not overrides.get("num_classes"):
        # A pooler that nothing reads would never get a gradient.
        published = {**published, "pooler": None}
    fields, own = split_overrides({**published, **overrides})
    return BERT(vocab_size, TransformerConfig(**fields), **own)


def bert_base(vocab_size: int = 30_522, **overrides: Any) -> BERT:
    """BERT base, 110 M parameters, with the masked head; a pooler where there are classes.

    Args:
        overrides: fields of :class:`TransformerConfig`, and arguments of :class:`BERT`.
    """
    return _bert(vocab_size, BASE, overrides)


def bert_large(vocab_size: int = 30_522, **overrides: Any) -> BERT:
    """BERT large, 335 M parameters; overrides as :func:`bert_base`."""
    return bert_base(vocab_size, **{"dim": 1024, "depth": 24, "heads": 16, **overrides})


def bert_tiny(vocab_size: int = 30_522, **overrides: Any) -> BERT:
    """BERT tiny (Turc et al. 2019): 2 layers, 128 wide; overrides as :func:`bert_base`."""
    return bert_base(vocab_size, **{"dim": 128, "depth": 2, "heads": 2, **overrides})


def bert_mini(vocab_size: int = 30_522, **overrides: Any) -> BERT:
    """BERT mini (Turc et al. 2019): 4 layers, 256 wide; overrides as :func:`bert_base`."""
    return bert_base(vocab_size, **{"dim": 256, "depth": 4, "heads": 4, **overrides})


def bert_small(vocab_size: int = 30_522, **overrides: Any) -> BERT:
    """BERT small (Turc et al. 2019): 4 layers, 512 wide; overrides as :func:`bert_base`."""
    return bert_base(vocab_size, **{"dim": 512, "depth": 4, "heads": 8, **overrides})


def roberta_base(vocab_size: int = 50_265, **overrides: Any) -> BERT:
    """RoBERTa base (Liu et al. 2019), 125 M parameters: BERT without segments, trained longer.

    The published position table has two more rows in front, which it never reads.
    """
    published = {**BASE, "norm_eps": 1e-5, "token_types": 1}
    return _bert(vocab_size, published, overrides)


def distilbert_base(vocab_size: int = 30_522, **overrides: Any) -> BERT:
    """DistilBERT base (Sanh et al. 2019), 67 M parameters: half of BERT's layers, no segments."""
    published = {**BASE, "depth": 6, "token_types": 0, "pooler": "relu", "head_dropout": 0.2}
    return _bert(vocab_size, published, overrides)
