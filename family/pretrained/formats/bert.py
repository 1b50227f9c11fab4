"""BERT (Devlin et al. 2019), as transformers and the hub store it."""

from __future__ import annotations

from typing import Any

from family.models.bert import BERT, TOKENS
from family.pretrained.shared_fields import ACTIVATIONS, count_labels, label_fields
from family.pretrained.table import Field, Format, Names, Row, blocks

BLOCK: Names = {
    "self_attention.sublayer.qkv": (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ),
    "self_attention.sublayer.out": "attention.output.dense",
    "self_attention.norm": "attention.output.LayerNorm",
    "feedforward.sublayer.up": "intermediate.dense",
    "feedforward.sublayer.down": "output.dense",
    "feedforward.norm": "output.LayerNorm",
}
"""Of RoBERTa's blocks too."""


def stack(prefix: str) -> Names:
    """The names of embedding and blocks."""
    return {
        "embedding.tokens": f"{prefix}.embeddings.word_embeddings",
        "embedding.position": f"{prefix}.embeddings.position_embeddings",
        "embedding.token_types": f"{prefix}.embeddings.token_type_embeddings",
        "embedding.norm": f"{prefix}.embeddings.LayerNorm",
        **blocks("transformer", f"{prefix}.encoder.layer.{{}}", BLOCK),
    }


def names(model: BERT) -> Names:
    pairs = "cls.seq_relationship"  # beside a masked head, the classes are of pairs of texts
    paired = model.masked_head is not None
    return {
        **stack("bert"),
        "pooler.dense": "bert.pooler.dense",
        "class_head": pairs if paired else Row(("classifier",), copies=(pairs,)),
        "masked_head.dense": "cls.predictions.transform.dense",
        "masked_head.norm": "cls.predictions.transform.LayerNorm",
        "masked_head.output.weight": "cls.predictions.decoder.weight",
        "masked_head.output.bias": Row(
            ("cls.predictions.bias",), copies=("cls.predictions.decoder.bias",)
        ),
    }


TAGGING = {"Tagging": {"pooler": None}}
"""What goes with a fresh head of each token."""


def of_tokens(config: dict[str, Any]) -> bool:
    """Whether the classes of a config are those of each token."""
    named = config.get("architectures")
    return isinstance(named, list) and str(named[:1]).endswith("ForTokenClassification']")


def pooling(tagged: bool) -> dict[str, Any]:
    """The arguments of classes of each token, as all but ModernBERT have them; none of others."""
    return {"pooling": TOKENS, "pooler": None} if tagged else {}


def is_tagger(model: BERT) -> bool:
    """Whether a model has classes of each token."""
    return bool(model.num_classes) and model.pooling == TOKENS


def kind_of_head(model: BERT, name: str) -> str:
    """What their class of a model with classes is called behind its own name.

    Raises:
        ValueError: a layer before the classes of tokens, or a masked head beside them.
    """
    if not is_tagger(model):
        return "ForSequenceClassification"
    if model.pooler is not None or model.masked_head is not None:
        raise ValueError(
            f"format={name!r} has classes of tokens without a pooler, and without a masked head."
        )
    return "ForTokenClassification"


def no_pooler(model: BERT) -> tuple[str, ...]:
    """Older files of classes of tokens have the bare stack's pooler too."""
    return (r"^(\w+\.)?pooler\.",) if is_tagger(model) else ()


def heads(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The heads that the weights are of."""
    classes = count_labels(config) if "classifier.weight" in names else 0
    pooled = names & {"bert.pooler.dense.weight", "pooler.dense.weight"}
    return {
        "masked_head": "cls.predictions.transform.dense.weight" in names,
        "num_classes": 2 if "cls.seq_relationship.weight" in names else classes,
        "pooler": "tanh" if pooled else None,
        **head_dropout(config),
        **pooling(bool(classes) and of_tokens(config)),
    }


def head_dropout(config: dict[str, Any]) -> dict[str, Any]:
    rate = config.get("classifier_dropout")
    return {"head_dropout": config.get("hidden_dropout_prob", 0.1) if rate is None else rate}


def check_segments(config: dict[str, Any]) -> None:
    """Refuse to write a table of token types without rows.

    Raises:
        ValueError: there is none.
    """
    if config["type_vocab_size"] == 0:
        name = config["model_type"].replace("-", "_")
        raise ValueError(f"format={name!r} cannot express token_types=0; format='distilbert' can.")


def fields(model: BERT, config: dict[str, Any]) -> dict[str, Any]:
    check_segments(config)
    kind = kind_of_head(model, "bert")
    if model.num_classes and model.pooler is None and not is_tagger(model):
        raise ValueError(
            "format='bert' cannot express classes without a pooler: build it with one."
        )
    if model.masked_head is not None:
        kind = "BertForPreTraining" if model.num_classes else "BertForMaskedLM"
    else:
        kind = f"Bert{kind}" if model.num_classes else "BertModel"
    dropout = {"classifier_dropout": model.head_dropout.p}
    return {"architectures": [kind], **dropout, **label_fields(model, model.num_classes)}


FORMAT = Format(
    name="bert",
    member=BERT,
    model_types=("bert",),
    architectures=(
        "BertModel",
        "BertForMaskedLM",
        "BertForPreTraining",
        "BertForSequenceClassification",
        "BertForTokenClassification",
    ),
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("embedding_dim", "hidden_size"),
        Field("config.dim", "hidden_size"),
        Field("config.depth", "num_hidden_layers"),
        Field("config.heads", "num_attention_heads"),
        Field("config.ffn_dim", "intermediate_size"),
        Field("config.max_tokens", "max_position_embeddings"),
        Field("token_types", "type_vocab_size", 2),
        Field("masked_activation", "hidden_act", "gelu", ACTIVATIONS),
        Field("config.activation", "hidden_act", "gelu", ACTIVATIONS),
        Field("config.norm_eps", "layer_norm_eps", 1e-12),
        Field("config.dropout", "hidden_dropout_prob", 0.1),
        Field("config.attention_dropout", "attention_probs_dropout_prob", 0.1),
    ),
    constants={"config.norm_order": "post", "config.position": "learned"},
    fixed={
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
    },
    prefix="bert.",
    ignored=(r"embeddings\.position_ids$",),
    renamed=lambda name: name.replace(".gamma", ".weight").replace(".beta", ".bias"),
    names=names,
    new_classes={"pooler": "tanh"},
    new_heads=TAGGING,
    left_out=no_pooler,
    detect=heads,
    finish=fields,
)
