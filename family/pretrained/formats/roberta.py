"""RoBERTa (Liu et al. 2019), as transformers and the hub store it."""

from __future__ import annotations

from typing import Any

from family.models.bert import BERT
from family.pretrained.formats.bert import FORMAT as BERT_FORMAT
from family.pretrained.formats.bert import head_dropout, stack
from family.pretrained.table import POSITIONS, UNUSED, Field, Format, Names, Row
from family.pretrained.words import count_labels, label_fields


def names(model: BERT) -> Names:
    return {
        **stack("roberta"),
        "embedding.position.weight": Row(
            ("roberta.embeddings.position_embeddings.weight",), POSITIONS
        ),
        "pooler.dense": "classifier.dense" if model.num_classes else "roberta.pooler.dense",
        "class_head": "classifier.out_proj",
        "masked_head.dense": "lm_head.dense",
        "masked_head.norm": "lm_head.layer_norm",
        "masked_head.output.weight": "lm_head.decoder.weight",
        "masked_head.output.bias": Row(("lm_head.bias",), copies=("lm_head.decoder.bias",)),
    }


def heads(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The heads that the weights are of, and positions without the rows that nothing reads."""
    classes = "classifier.out_proj.weight" in names
    pooled = names & {"roberta.pooler.dense.weight", "pooler.dense.weight"}
    return {
        "config.max_tokens": config.get("max_position_embeddings", 512) - UNUSED,
        "masked_head": "lm_head.dense.weight" in names,
        "num_classes": count_labels(config) if classes else 0,
        "pooler": "tanh" if classes or pooled else None,
        **head_dropout(config),
    }


def unread(names: set[str]) -> tuple[str, ...]:
    """Older files of classes have the bare stack's pooler too."""
    classes = "classifier.out_proj.weight" in names
    return (r"embeddings\.position_ids$", *((r"^roberta\.pooler\.",) if classes else ()))


def fields(model: BERT, config: dict[str, Any]) -> dict[str, Any]:
    if model.num_classes and (model.pooler is None or model.masked_head is not None):
        raise ValueError("format='roberta' has classes after a pooler, and without a masked head.")
    kind = "RobertaForMaskedLM" if model.masked_head is not None else "RobertaModel"
    return {
        "architectures": ["RobertaForSequenceClassification" if model.num_classes else kind],
        "max_position_embeddings": model.config.max_tokens + UNUSED,
        "classifier_dropout": model.head_dropout.p,
        **label_fields(model, model.num_classes),
    }


SAME = {"config.max_tokens", "config.activation"}
FORMAT = Format(
    name="roberta",
    member=BERT,
    model_types=("roberta",),
    architectures=("RobertaModel", "RobertaForMaskedLM", "RobertaForSequenceClassification"),
    fields=(
        *(field for field in BERT_FORMAT.fields if field.ours not in SAME),
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
    detect=heads,
    finish=fields,
)
