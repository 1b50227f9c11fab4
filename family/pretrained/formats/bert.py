"""BERT (Devlin et al. 2019), as transformers and the hub store it."""

from __future__ import annotations

from typing import Any

from family.models.bert import BERT, PER_TOKEN, SPANS, TOKENS
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
        "class_head": pairs if paired else head_name(model, Row(("classifier",), copies=(pairs,))),
        "masked_head.dense": "cls.predictions.transform.dense",
        "masked_head.norm": "cls.predictions.transform.LayerNorm",
        "masked_head.output.weight": "cls.predictions.decoder.weight",
        "masked_head.output.bias": Row(
            ("cls.predictions.bias",), copies=("cls.predictions.decoder.bias",)
        ),
    }


NEW_HEADS: dict[str, dict[str, Any]] = {
    "Tagging": {"pooler": None},
    "QuestionAnswering": {"pooler": None, "head_dropout": 0.0},
}
"""What goes with a fresh head of each token."""
KINDS = {TOKENS: "ForTokenClassification", SPANS: "ForQuestionAnswering"}
"""What their class of a model with such a pooling is called behind its own name."""
SPAN_HEAD = "qa_outputs"


def pooling_of(config: dict[str, Any]) -> str | None:
    """The pooling that the name of their class says, where it is one of each token."""
    named = config.get("architectures")
    first = str(named[0]) if isinstance(named, list) and named else ""
    return next((kind for kind, ending in KINDS.items() if first.endswith(ending)), None)


def has_spans(names: set[str]) -> bool:
    """Whether weights are of answers to questions, whose head goes by a name of its own."""
    return f"{SPAN_HEAD}.weight" in names


def pooling(tagged: bool, names: set[str]) -> dict[str, Any]:
    """The arguments of a head of each token, as all but ModernBERT have them; none of others."""
    if has_spans(names):
        return {"pooling": SPANS, "pooler": None, "head_dropout": 0.0}
    return {"pooling": TOKENS, "pooler": None} if tagged else {}


def of_tokens(model: BERT) -> bool:
    """Whether a model has classes of each token, or spans."""
    return bool(model.num_classes) and model.pooling in PER_TOKEN


def head_name(model: BERT, whole: str | Row) -> str | Row:
    """The name of the linear layer of classes; ``whole``, where these are of whole texts."""
    if not of_tokens(model):
        return whole
    return SPAN_HEAD if model.pooling == SPANS else "classifier"


def kind_of_head(model: BERT, name: str) -> str:
    """What their class of a model with classes is called behind its own name.

    Raises:
        ValueError: a layer before the classes of tokens, or a masked head beside them.
    """
    if not of_tokens(model):
        return "ForSequenceClassification"
    if model.pooler is not None or model.masked_head is not None:
        raise ValueError(
            f"format={name!r} has classes of tokens without a pooler, and without a masked head."
        )
    return KINDS[model.pooling]


def no_pooler(model: BERT) -> tuple[str, ...]:
    """Older files of classes of tokens have the bare stack's pooler too."""
    return (r"^(\w+\.)?pooler\.",) if of_tokens(model) else ()


def heads(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The heads that the weights are of."""
    classes = count_labels(config) if "classifier.weight" in names or has_spans(names) else 0
    pooled = names & {"bert.pooler.dense.weight", "pooler.dense.weight"}
    return {
        "masked_head": "cls.predictions.transform.dense.weight" in names,
        "num_classes": 2 if "cls.seq_relationship.weight" in names else classes,
        "pooler": "tanh" if pooled else None,
        **head_dropout(config),
        **pooling(bool(classes) and pooling_of(config) == TOKENS, names),
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
    if model.num_classes and model.pooler is None and not of_tokens(model):
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
        "BertForQuestionAnswering",
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
    new_heads=NEW_HEADS,
    replaced=("classifier.", "qa_outputs."),
    left_out=no_pooler,
    detect=heads,
    finish=fields,
)
