"""DistilBERT (Sanh et al. 2019), as transformers and the hub store it."""

from __future__ import annotations

from typing import Any

from family.models.bert import BERT, SPANS
from family.pretrained.formats.bert import (
    NEW_HEADS,
    has_spans,
    head_name,
    kind_of_head,
    of_tokens,
    pooling,
)
from family.pretrained.shared_fields import ACTIVATIONS, count_labels, label_fields
from family.pretrained.table import Field, Format, Names, blocks


def names(model: BERT) -> Names:
    return {
        "embedding.tokens": "distilbert.embeddings.word_embeddings",
        "embedding.position": "distilbert.embeddings.position_embeddings",
        "embedding.norm": "distilbert.embeddings.LayerNorm",
        "pooler.dense": "pre_classifier",
        "class_head": head_name(model, "classifier"),
        "masked_head.dense": "vocab_transform",
        "masked_head.norm": "vocab_layer_norm",
        "masked_head.output": "vocab_projector",
        **blocks(
            "transformer",
            "distilbert.transformer.layer.{}",
            {
                "self_attention.sublayer.qkv": (
                    "attention.q_lin",
                    "attention.k_lin",
                    "attention.v_lin",
                ),
                "self_attention.sublayer.out": "attention.out_lin",
                "self_attention.norm": "sa_layer_norm",
                "feedforward.sublayer.up": "ffn.lin1",
                "feedforward.sublayer.down": "ffn.lin2",
                "feedforward.norm": "output_layer_norm",
            },
        ),
    }


def heads(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The heads that the weights are of."""
    classes, pooled = "classifier.weight" in names, "pre_classifier.weight" in names
    spans = has_spans(names)
    return {
        "masked_head": "vocab_transform.weight" in names,
        "num_classes": count_labels(config) if classes or spans else 0,
        "pooler": "relu" if pooled else None,
        **pooling(classes and not pooled, names),
        **({"head_dropout": config.get("qa_dropout", 0.1)} if spans else {}),
    }


def fields(model: BERT, config: dict[str, Any]) -> dict[str, Any]:
    classes, masked = bool(model.num_classes), model.masked_head is not None
    kind_of_classes, alone = kind_of_head(model, "distilbert"), of_tokens(model)
    if (classes and not alone) != (model.pooler is not None) or (classes and masked):
        raise ValueError(
            "format='distilbert' has classes with a pooler, or a masked head, or none."
        )
    kind = "DistilBertForMaskedLM" if masked else "DistilBertModel"
    return {
        "architectures": [f"DistilBert{kind_of_classes}" if classes else kind],
        **({"qa_dropout": model.head_dropout.p} if model.pooling == SPANS else {}),
        **label_fields(model, model.num_classes),
    }


FORMAT = Format(
    name="distilbert",
    member=BERT,
    model_types=("distilbert",),
    architectures=(
        "DistilBertModel",
        "DistilBertForMaskedLM",
        "DistilBertForSequenceClassification",
        "DistilBertForTokenClassification",
        "DistilBertForQuestionAnswering",
    ),
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("embedding_dim", "dim"),
        Field("config.dim", "dim"),
        Field("config.depth", "n_layers"),
        Field("config.heads", "n_heads"),
        Field("config.ffn_dim", "hidden_dim"),
        Field("config.max_tokens", "max_position_embeddings", 512),
        Field("masked_activation", "activation", "gelu", ACTIVATIONS),
        Field("config.activation", "activation", "gelu", ACTIVATIONS),
        Field("config.dropout", "dropout", 0.1),
        Field("config.attention_dropout", "attention_dropout", 0.1),
        Field("head_dropout", "seq_classif_dropout", 0.2),
    ),
    constants={
        "config.norm_order": "post",
        "config.norm_eps": 1e-12,
        "config.position": "learned",  # sinusoidal_pos_embds only says how the table began
        "token_types": 0,
    },
    fixed={"tie_word_embeddings": True},
    prefix="distilbert.",
    ignored=(r"embeddings\.position_ids$",),
    names=names,
    new_classes={"pooler": "relu"},
    new_heads=NEW_HEADS,
    replaced=("classifier.", "pre_classifier.", "qa_outputs."),
    detect=heads,
    finish=fields,
)
