"""Encoders of sentences, as sentence-transformers keeps them: a published encoder in its own format, and a
dense layer beside it; ``family/pretrained/sentence.py`` reads and writes the folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from family.models.bert import BERT
from family.models.sentence import SentenceEncoder
from family.pretrained.table import Format, Names, nested

MEMBER = SentenceEncoder
DENSE = ("linear.weight", "linear.bias")
"""Their names of the layer behind the pooling."""
ANSWERS = ("masked_head", "replaced_head", "num_classes")
BEFORE = ("masked_activation", "pooling", "pooler_norm", "dense_bias", "head_dropout")
"""Arguments of a BERT that make its heads, and those that are of them."""


def only_encoder(layout: Format, arguments: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The arguments of an encoder that are those of a SentenceEncoder too.

    Raises:
        ValueError: no BERT, or one with a head.
    """
    if layout.member is not BERT or any(map(arguments.get, ANSWERS)):
        raise ValueError(
            f"{origin}: only a bare BERT, or one of its descendants, encodes sentences here."
        )
    kept = {n: v for n, v in arguments.items() if n not in (*ANSWERS, *BEFORE)}
    if kept.get("embedding_dim") == kept["config"]["dim"]:
        del kept["embedding_dim"]  # as it is without saying
    return kept


def wrapped(layout: Format) -> Format:
    """The format of an encoder, as a part of a SentenceEncoder."""

    def names(model: SentenceEncoder) -> Names:
        encoder = nested(layout.table(model.encoder), "encoder.")
        return {**encoder, "projection.weight": DENSE[0], "projection.bias": DENSE[1]}

    def left_out(model: SentenceEncoder) -> tuple[str, ...]:
        return layout.left_out(model.encoder)

    return replace(layout, member=MEMBER, names=names, left_out=left_out)


def format_of(encoder: Any) -> str:
    """The published format that has a place for a bare encoder."""
    by_position = {"relative": "mpnet", "rotary": "modernbert"}
    if encoder.config.position in by_position:
        return by_position[encoder.config.position]
    if encoder.embedding_dim != encoder.config.dim:
        return "electra"
    token_types = {0: "distilbert", 1: "roberta"}
    return token_types.get(encoder.arguments["token_types"], "bert")
