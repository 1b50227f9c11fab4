"""RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2020), as transformers and the hub store
them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from family.models.bert import BERT
from family.pretrained.formats.bert import FORMAT as BERT_FORMAT
from family.pretrained.formats.bert import (
    check_segments,
    has_spans,
    head_dropout,
    head_name,
    kind_of_head,
    no_pooler,
    of_tokens,
    pooling,
    stack,
)
from family.pretrained.shared_fields import count_labels, label_fields
from family.pretrained.table import POSITIONS, UNUSED, Field, Format, Names, Row


def names(model: BERT) -> Names:
    return {**stack("roberta"), **around(model, "roberta")}


def around(model: BERT, prefix: str) -> Names:
    """The names of positions and heads; MPNet's too."""
    return {
        "embedding.position.weight": Row(
            (f"{prefix}.embeddings.position_embeddings.weight",), POSITIONS
        ),
        "pooler.dense": "classifier.dense" if model.num_classes else f"{prefix}.pooler.dense",
        "class_head": head_name(model, "classifier.out_proj"),
        "masked_head.dense": "lm_head.dense",
        "masked_head.norm": "lm_head.layer_norm",
        "masked_head.output.weight": "lm_head.decoder.weight",
        "masked_head.output.bias": Row(("lm_head.bias",), copies=("lm_head.decoder.bias",)),
    }


def heads(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The heads that the weights are of, and positions without the rows that nothing reads."""
    tagged = "classifier.weight" in names
    classes = "classifier.out_proj.weight" in names
    spans = has_spans(names)
    pooled = any(name.endswith("pooler.dense.weight") for name in names)
    return {
        "config.max_tokens": config.get("max_position_embeddings", 512) - UNUSED,
        "masked_head": "lm_head.dense.weight" in names,
        "num_classes": count_labels(config) if classes or tagged or spans else 0,
        "pooler": "tanh" if classes or pooled else None,
        **head_dropout(config),
        **pooling(tagged, names),
    }


def unread(names: set[str]) -> tuple[str, ...]:
    """Older files of classes have the bare stack's pooler too."""
    classes = "classifier.out_proj.weight" in names
    return (r"embeddings\.position_ids$", *((r"^(\w+\.)?pooler\.",) if classes else ()))


def fields(kind: str) -> Callable[[BERT, dict[str, Any]], dict[str, Any]]:
    """What beside the table is written of a model whose class of theirs is called so; MPNet's too."""

    def finish(model: BERT, config: dict[str, Any]) -> dict[str, Any]:
        if "type_vocab_size" in config:
            check_segments(config)
        classes, masked = bool(model.num_classes), model.masked_head is not None
        kind_of_classes = kind_of_head(model, kind.lower())
        if classes and not of_tokens(model) and (model.pooler is None or masked):
            raise ValueError(
                f"the format of {kind} has classes after a pooler, and without a masked head."
            )
        head = kind_of_classes if classes else "ForMaskedLM" if masked else "Model"
        return {
            "architectures": [kind + head],
            "max_position_embeddings": model.config.max_tokens + UNUSED,
            "classifier_dropout": model.head_dropout.p,
            **label_fields(model, model.num_classes),
        }

    return finish


OTHER = {"config.max_tokens", "config.activation"}
FORMAT = Format(
    name="roberta",
    member=BERT,
    model_types=("roberta",),
    architectures=(
        "RobertaModel",
        "RobertaForMaskedLM",
        "RobertaForSequenceClassification",
        "RobertaForTokenClassification",
        "RobertaForQuestionAnswering",
    ),
    fields=(
        *(field for field in BERT_FORMAT.fields if field.ours not in OTHER),
        # Its masked head has this activation, whatever that of the blocks is.
        Field("config.activation", "hidden_act", "gelu", {"gelu": "gelu"}),
    ),
    constants=BERT_FORMAT.constants,
    # Positions count from the padding's id on.
    fixed={**BERT_FORMAT.fixed, "pad_token_id": UNUSED - 1},
    prefix="roberta.",
    ignored=unread,
    renamed=BERT_FORMAT.renamed,
    names=names,
    new_classes={"pooler": "tanh"},
    new_heads=BERT_FORMAT.new_heads,
    replaced=BERT_FORMAT.replaced,
    left_out=no_pooler,
    detect=heads,
    finish=fields("Roberta"),
)
XLM = replace(
    FORMAT,
    name="xlm_roberta",
    model_types=("xlm-roberta",),
    architectures=(
        "XLMRobertaModel",
        "XLMRobertaForMaskedLM",
        "XLMRobertaForSequenceClassification",
        "XLMRobertaForTokenClassification",
        "XLMRobertaForQuestionAnswering",
    ),
    finish=fields("XLMRoberta"),
)
