"""A sentence as one vector: BERT, pooled (Reimers & Gurevych 2019)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.checks import check_value
from family.core.config import TransformerConfig
from family.heads.pooling import POOLINGS
from family.models.bert import BERT
from family.models.examples import SENTENCES
from family.models.member import member

ENCODER = ("embedding_dim", "embedding_position")
"""Further arguments of a BERT on which its tokens depend."""
PROJECTIONS = {"tanh": torch.tanh, "identity": lambda x: x}


@member(
    task="SentenceEmbedding",
    reads=("text",),
    inputs=SENTENCES,
    example={
        "vocab_size": 40,
        "config": TransformerConfig(
            dim=16, depth=2, heads=2, norm_order="post", position="learned", max_tokens=32
        ),
        "projection": 8,
    },
    variants=({"pooling": "class"}, {"pooling": "max", "normalize": False}),
)
class SentenceEncoder(nn.Module):
    """embed -> Transformer -> one vector, whose products with others say how near they are (section 3).

    Args:
        vocab_size, config, token_types: of the :class:`BERT` that reads.
        pooler: of that BERT; no embedding depends on it, but a checkpoint may have it.
        pooling: "mean" of all tokens, the first token ("class"), or each channel's largest ("max").
        projection: the width of a dense layer behind; None leaves it out.
        projection_activation: after that layer, "tanh" or "identity".
        normalize: make vectors of length 1.
        max_tokens: where longer texts should be cut; None is the config's.
        encoder: further arguments of that BERT: ``embedding_dim``, ``embedding_position``.

    Raises:
        ValueError: an unknown ``pooling`` or ``projection_activation``.
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        *,
        token_types: int = 2,
        pooler: str | None = None,
        pooling: str = "mean",
        projection: int | None = None,
        projection_activation: str = "tanh",
        normalize: bool = True,
        max_tokens: int | None = None,
        **encoder: Any,
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(
                f"pooling={pooling!r} is unknown; choose one of: {', '.join(POOLINGS)}."
            )
        if projection_activation not in PROJECTIONS:
            choices = ", ".join(PROJECTIONS)
            raise ValueError(
                f"projection_activation={projection_activation!r} is unknown; choose one of: "
                f"{choices}."
            )
        self.config, self.vocab_size, self.pooling = config, vocab_size, pooling
        check_value("max_tokens", max_tokens, (int, type(None)))
        self.max_tokens = min(max_tokens or config.max_tokens, config.max_tokens)
        self.encoder = BERT(
            vocab_size, config, token_types=token_types, masked_head=False, pooler=pooler, **encoder
        )
        if self.encoder.pooler is not None:  # without a gradient of its own
            self.encoder.pooler.requires_grad_(False)
        self.projection = None if projection is None else nn.Linear(config.dim, projection)
        self.projection_activation, self.normalize = projection_activation, normalize

    def encode_text(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, tokens)`` -> ``(batch, dim)``, or ``(batch, projection)``.

        Args:
            input_ids: special tokens included.
            mask: ``(batch, tokens)``, True = a token.
        """
        x = POOLINGS[self.pooling](self.encoder.encode(input_ids, mask), mask)
        if self.projection is not None:
            x = PROJECTIONS[self.projection_activation](self.projection(x))
        return F.normalize(x, dim=-1) if self.normalize else x

    forward = encode_text


@torch.no_grad()
def as_sentence_encoder(model: nn.Module) -> nn.Module:
    """A BERT, or one of its descendants, as an encoder of sentences: the mean of its tokens, of length 1;
    its heads and its pooler are left out. Any other model is returned as it is."""
    if type(model) is not BERT:
        return model
    arguments: Any = model.arguments
    kept: dict[str, Any] = {name: arguments[name] for name in ("token_types", *ENCODER)}
    made = SentenceEncoder(model.vocab_size, model.config, **kept)
    made.encoder.embedding, made.encoder.transformer = model.embedding, model.transformer
    made.tokenizer = model.tokenizer
    return made.train(model.training)
