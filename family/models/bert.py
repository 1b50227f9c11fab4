"""BERT: a stack that reads both ways (Devlin et al. 2019), and what came of it: RoBERTa, DistilBERT,
XLM-RoBERTa, ELECTRA, MPNet, ModernBERT."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from family.checks import check_value
from family.core.config import TransformerConfig
from family.core.init import make_norm
from family.core.transformer import Transformer
from family.heads.classifier import Pooler, class_head
from family.heads.masked import MaskedHead, ReplacedHead
from family.heads.pooling import POOLINGS
from family.inputs.text import TextEmbedding, document_positions, token_positions
from family.losses.token_loss import TokenLoss
from family.models.examples import TEXT
from family.models.member import build, member

TOKENS, SPANS = "tokens", "spans"
"""The poolings that pool nothing: classes of each token; how likely a span begins there, and ends."""
PER_TOKEN = (TOKENS, SPANS)


@member(
    task="TextClassification",
    reads=("text",),
    inputs=TEXT,
    example={
        "vocab_size": 40,
        "config": TransformerConfig(
            dim=16, depth=2, heads=2, norm_order="post", position="learned", max_tokens=32
        ),
        "num_classes": 3,
        "masked_head": False,
    },
    variants=(
        {"pooling": "mean", "pooler": None},
        {"pooling": "max"},
        {"pooling": TOKENS, "pooler": None},
        {"masked_head": True, "num_classes": 0, "pooler": None},
        {"replaced_head": True, "num_classes": 0, "pooler": None},
        {"config": TransformerConfig(dim=16, depth=2, heads=2, position="rotary", window=4)},
    ),
    classes=("class_head.", "masked_head.", "replaced_head."),
    # The other heads would answer in place of the classes.
    class_arguments={"masked_head": False, "replaced_head": False},
    heads={
        "MaskedLanguageModeling": {"masked_head": True},
        "Tagging": {"pooling": TOKENS},
        "QuestionAnswering": {"pooling": SPANS},
        "TextRegression": {"num_classes": 1},
    },
    # Two classes beside a masked head, without names, are of pre-training: does one sentence follow?
    complete=lambda model: (
        bool(model.num_classes) and (model.masked_head is None or model.labels is not None)
    ),
)
class BERT(nn.Module):
    """embed -> Transformer -> the masked tokens, or classes of the whole (section 3, figure 1).

    Args:
        vocab_size: tokens in the vocabulary.
        config: the stack, not causal; of "post" norm order in most that is published.
        num_classes: 0 leaves the class head out; 1 is no class but a number (regression); 2 beside a
            masked head are BERT's "is the next sentence" and "is not".
        token_types: segments that the embedding tells apart; 0 is none (DistilBERT).
        embedding_dim: width of the embedding, where it is not the stack's (ELECTRA).
        embedding_position: what is added to embeddings, where the stack has another position beside:
            "learned" before "relative" is MPNet. None is the config's.
        masked_head: predict masked tokens.
        masked_activation: of the masked head's dense layer; None is the config's.
        replaced_head: tell which tokens were replaced (ELECTRA's discriminator).
        pooling: what the classes are told from, the first token ("class"), the "mean" of all, or
            each channel's largest ("max"); "tokens" tells those of each token (named entities), and
            "spans" two numbers of each, whether the answer begins there and whether it ends. A word of
            its own, as two tags without names look just like it.
        pooler: the dense layer between that and the classes, by its activation: "tanh" (BERT,
            RoBERTa), "relu" (DistilBERT), "gelu" (ELECTRA), or None for no such layer, as most have it
            that tell the classes of tokens.
        pooler_norm: a norm after it (ModernBERT).
        dense_bias: of the dense layers of masked head and pooler.
        head_dropout: before the classes' linear layer.

    Raises:
        ValueError: a causal config, or one with cross-attention; an unknown ``pooling``, ``pooler``,
            ``embedding_position`` or ``masked_activation``; spans of more or fewer than two classes.
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        *,
        num_classes: int = 0,
        token_types: int = 2,
        embedding_dim: int | None = None,
        embedding_position: str | None = None,
        masked_head: bool = True,
        masked_activation: str | None = None,
        replaced_head: bool = False,
        pooling: str = "class",
        pooler: str | None = "tanh",
        pooler_norm: bool = False,
        dense_bias: bool = True,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if config.causal or config.cross_attention:
            raise ValueError(
                "BERT reads both ways, and one text alone: its config needs causal=False and "
                "cross_attention=False."
            )
        if pooling not in (*POOLINGS, *PER_TOKEN):
            choices = ", ".join((*POOLINGS, *PER_TOKEN))
            raise ValueError(f"pooling={pooling!r} is unknown; choose one of: {choices}.")
        if pooling == SPANS and num_classes not in (0, 2):
            raise ValueError(
                f"pooling='spans' has a begin and an end: num_classes must be 2, not {num_classes}."
            )
        check_value("embedding_dim", embedding_dim, (int, type(None)))
        self.config, self.vocab_size, self.num_classes = config, vocab_size, num_classes
        self.embedding_dim, self.pooling = embedding_dim or config.dim, pooling
        self.token_types = token_types
        self.masked_activation = masked_activation or config.activation
        self.embedding = TextEmbedding(
            vocab_size,
            added(config, embedding_position),
            token_types=token_types,
            norm=True,
            embedding_dim=embedding_dim,
        )
        self.transformer = Transformer(config)
        self.masked_head = None
        if masked_head:
            tokens = self.embedding.tokens
            self.masked_head = MaskedHead(config, tokens, dense_bias, masked_activation)
        self.replaced_head = ReplacedHead(config) if replaced_head else None
        self.pooler = None
        if pooler is not None:
            norm = None
            if pooler_norm:
                norm = make_norm(config, config.dim)
            self.pooler = Pooler(config.dim, pooler, dense_bias, norm)
        self.head_dropout = nn.Dropout(head_dropout)
        self.class_head = class_head(config.dim, num_classes) if num_classes else None

    def encode(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        token_types: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """All tokens, ``(batch, tokens)`` -> ``(batch, tokens, dim)``.

        Args:
            mask: ``(batch, tokens)``, True = a token; padding may stand left or right.
            token_types: ``(batch, tokens)``, the segment of each token; None is 0 for all.
            documents: ``(batch, tokens)``, a number for each of the texts that are packed into a row:
                none sees another, and each counts its positions from 0.
        """
        positions = (
            token_positions(input_ids, mask) if documents is None else document_positions(documents)
        )
        x = self.embedding(input_ids, positions, token_types)
        return self.transformer(x, mask=mask, documents=documents, positions=positions)

    def masked_logits(self, tokens: Tensor, loss: TokenLoss | None = None) -> Tensor:
        """What stood there: ``(..., dim)``, all tokens or only the masked ones -> ``(..., vocab)``; or the
        loss that is asked for."""
        if self.masked_head is None:
            raise ValueError(
                "this BERT has no head for masked tokens: build it with masked_head=True."
            )
        if loss is None:
            return self.masked_head(tokens)
        return loss(self.masked_head.output, self.masked_head.features(tokens))

    def replaced_logits(self, tokens: Tensor) -> Tensor:
        """Over 0 where a token seems to stand in place of another: ``(..., dim)`` -> ``(...)``."""
        if self.replaced_head is None:
            raise ValueError(
                "this BERT has no head for replaced tokens: build it with replaced_head=True."
            )
        return self.replaced_head(tokens)

    def pooled(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """All tokens as one, through the pooler, ``(batch, tokens, dim)`` -> ``(batch, dim)``; where
        each has its classes, each by itself, ``(batch, tokens, dim)``.

        Args:
            mask: ``(batch, tokens)``; of the first token alone, needed where padding stands left.
        """
        one = tokens if self.pooling in PER_TOKEN else POOLINGS[self.pooling](tokens, mask)
        return one if self.pooler is None else self.pooler(one)

    def class_logits(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, tokens, dim)`` -> ``(batch, classes)``, or of each token ``(batch, tokens,
        classes)``; ``mask`` as in :meth:`pooled`."""
        if self.class_head is None:
            raise ValueError("this BERT has no head for classes: build it with num_classes over 0.")
        return self.class_head(self.head_dropout(self.pooled(tokens, mask)))

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        token_types: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """Logits of the first head there is: of masked tokens ``(batch, tokens, vocab)``, of replaced
        ones ``(batch, tokens)``, of the classes as :meth:`class_logits`; without any,
        :meth:`encode`'s tokens. Arguments as there.
        """
        tokens = self.encode(input_ids, mask, token_types, documents)
        if self.masked_head is not None:
            return self.masked_logits(tokens)
        if self.replaced_head is not None:
            return self.replaced_logits(tokens)
        return tokens if self.class_head is None else self.class_logits(tokens, mask)


def added(config: TransformerConfig, position: str | None) -> TransformerConfig:
    """The stack's config as its embedding takes it, with the position that is added there.

    Raises:
        ValueError: a position that is not added to embeddings.
    """
    if position is None:
        return config
    known = ("learned", "sinusoidal", "timing")
    if position not in known:
        raise ValueError(
            f"embedding_position={position!r} is not added to embeddings; choose one of: "
            f"{', '.join(known)}."
        )
    return config.replace(position=position)


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
    return build(BERT, {"vocab_size": vocab_size, **published, **overrides})


def bert_base(vocab_size: int = 30_522, **overrides: Any) -> BERT:
    """BERT base, 110 M parameters, with the masked head; a pooler where there are classes.

    Args:
        overrides: arguments of :class:`BERT`, and fields of its config.
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


def xlm_roberta_base(vocab_size: int = 250_002, **overrides: Any) -> BERT:
    """XLM-RoBERTa base (Conneau et al. 2020), 278 M parameters: RoBERTa in a hundred languages."""
    return roberta_base(vocab_size, **overrides)


def electra_small(vocab_size: int = 30_522, **overrides: Any) -> BERT:
    """ELECTRA small (Clark et al. 2020), 14 M parameters: the discriminator, whose embedding is
    narrower than its stack. It has the head for replaced tokens, or classes in its place."""
    small = {"dim": 256, "heads": 4, "embedding_dim": 128, "masked_head": False, "pooler": "gelu"}
    replaced = not overrides.get("num_classes")
    return _bert(vocab_size, {**BASE, **small, "replaced_head": replaced}, overrides)


def mpnet_base(vocab_size: int = 30_527, **overrides: Any) -> BERT:
    """MPNet base (Song et al. 2020), 109 M parameters: BERT with relative positions beside the
    learned ones, and without segments."""
    positions = {"position": "relative", "embedding_position": "learned"}
    published = {**BASE, **positions, "norm_eps": 1e-5, "token_types": 0}
    return _bert(vocab_size, published, overrides)


def modernbert_base(vocab_size: int = 50_368, **overrides: Any) -> BERT:
    """ModernBERT base (Warner et al. 2024), 150 M parameters: rotary positions, gated feed-forwards,
    hardly a bias, and two layers of three that see no further than 64 tokens.

    Args:
        overrides: as :func:`bert_base`; ``layers`` replace all that differs between layers.
    """
    depth = overrides.get("depth", 22)
    near, first = {"window": 65, "rotary_base": 10_000.0}, {"mixer_norm": False}
    published = {
        "dim": 768,
        "depth": depth,
        "heads": 12,
        "ffn_dim": 1152,
        "gated": True,
        "norm_bias": False,
        "bias": False,
        "position": "rotary",
        "rotary_base": 160_000.0,
        "max_tokens": 8192,
        "layers": [{**(near if i % 3 else {}), **({} if i else first)} for i in range(depth)],
        "token_types": 0,
        "pooler": "gelu",
        "pooler_norm": bool(overrides.get("num_classes")),
        "dense_bias": False,
    }
    return _bert(vocab_size, published, overrides)
