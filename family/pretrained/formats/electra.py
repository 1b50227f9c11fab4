"""ELECTRA (Clark et al. 2020), as transformers and the hub store it: generator and discriminator."""

from __future__ import annotations

from typing import Any

from family.models.bert import BERT
from family.pretrained.formats.bert import FORMAT as BERT_FORMAT
from family.pretrained.formats.bert import (
    check_segments,
    has_spans,
    head_dropout,
    head_name,
    kind_of_head,
    of_tokens,
    pooling,
    stack,
)
from family.pretrained.shared_fields import count_labels, label_fields
from family.pretrained.table import Field, Format, Names


def names(model: BERT) -> Names:
    return {
        **stack("electra"),
        "embedding.projection": "electra.embeddings_project",
        "masked_head.dense": "generator_predictions.dense",
        "masked_head.norm": "generator_predictions.LayerNorm",
        "masked_head.output": "generator_lm_head",
        "replaced_head.dense": "discriminator_predictions.dense",
        "replaced_head.output": "discriminator_predictions.dense_prediction",
        "pooler.dense": "classifier.dense",
        "class_head": head_name(model, "classifier.out_proj"),
    }


def heads(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The heads that the weights are of."""
    classes, tagged = "classifier.out_proj.weight" in names, "classifier.weight" in names
    return {
        "masked_head": "generator_predictions.dense.weight" in names,
        "replaced_head": "discriminator_predictions.dense.weight" in names,
        "num_classes": count_labels(config) if classes or tagged or has_spans(names) else 0,
        "pooler": "gelu" if classes else None,
        **head_dropout(config),
        **pooling(tagged, names),
    }


def fields(model: BERT, config: dict[str, Any]) -> dict[str, Any]:
    check_segments(config)
    heads = {
        "ForMaskedLM": model.masked_head is not None,
        "ForPreTraining": model.replaced_head is not None,
        kind_of_head(model, "electra"): bool(model.num_classes),
    }
    found = [name for name, there in heads.items() if there] or ["Model"]
    pooled = bool(model.num_classes) and not of_tokens(model)
    if len(found) > 1 or pooled != (model.pooler is not None):
        raise ValueError(
            "format='electra' has masked tokens, replaced tokens, or classes with a pooler, not two "
            "of these."
        )
    return {
        "architectures": [f"Electra{found[0]}"],
        "classifier_dropout": model.head_dropout.p,
        **label_fields(model, model.num_classes),
    }


OTHER = {"embedding_dim", "config.activation"}
FORMAT = Format(
    name="electra",
    member=BERT,
    model_types=("electra",),
    architectures=(
        "ElectraForPreTraining",
        "ElectraForMaskedLM",
        "ElectraModel",
        "ElectraForSequenceClassification",
        "ElectraForTokenClassification",
        "ElectraForQuestionAnswering",
    ),
    fields=(
        *(field for field in BERT_FORMAT.fields if field.ours not in OTHER),
        Field("embedding_dim", "embedding_size", 128),
        # The heads of masked tokens and of classes have this activation, whatever the blocks'.
        Field("config.activation", "hidden_act", "gelu", {"gelu": "gelu"}),
    ),
    constants=BERT_FORMAT.constants,
    fixed=BERT_FORMAT.fixed,
    prefix="electra.",
    ignored=(r"embeddings\.position_ids$",),
    renamed=BERT_FORMAT.renamed,
    names=names,
    new_classes={"pooler": "gelu"},
    new_heads=BERT_FORMAT.new_heads,
    replaced=BERT_FORMAT.replaced,
    detect=heads,
    finish=fields,
)
