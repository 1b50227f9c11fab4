"""Encoders that came of BERT: XLM-RoBERTa, ELECTRA, MPNet, ModernBERT, with each of their heads."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from cases import encoders
from cases.causal import our_loss, their_loss, widened
from cases.encoders import arguments, build, inputs, masked
from harness import Batch, Case, randomise
from torch import Tensor


def batch(token_types: bool = False, left: bool = False) -> Batch:
    """Three texts of unequal length; padding may stand left, and a second segment follows."""
    found = encoders.batch(token_types)
    if left:
        for row, mask in enumerate(found["mask"]):
            shift = int((~mask).sum())
            for name in found:
                found[name] = found[name].clone()
                found[name][row] = found[name][row].roll(shift)
    return found


def theirs(name: str, model: Any, batch: Batch) -> Tensor:
    """One of their outputs: of real tokens, or of texts."""
    given = arguments(batch)
    if model.config.model_type == "electra":  # which counts padding, where it is not told
        given["position_ids"] = (batch["mask"].long().cumsum(1) - 1).clamp(min=0)
    found = getattr(model(**given), name)
    return found[batch["mask"]] if found.shape[:2] == batch["mask"].shape else found


def each(model: Any, batch: Batch) -> Tensor:
    """What is said of each token: replaced, masked, or its vector."""
    return model(*inputs(batch))[batch["mask"]]


def pooled(model: Any, batch: Batch) -> Tensor:
    """Tokens, and what their pooler makes of the first."""
    tokens = each(model, batch)
    return torch.cat([tokens, model.pooled(model.encode(*inputs(batch)), batch["mask"])])


def their_pooled(model: Any, batch: Batch) -> Tensor:
    found = model(**arguments(batch))
    return torch.cat([found.last_hidden_state[batch["mask"]], found.pooler_output])


logits, tokens = partial(theirs, "logits"), partial(theirs, "last_hidden_state")
SIZES: dict[str, dict[str, Any]] = {
    "XLMRoberta": encoders.ROBERTA,
    "Electra": {**encoders.BERT, "embedding_size": 24},
    "MPNet": {"intermediate_size": 80, "max_position_embeddings": 18},
    "ModernBert": {
        "intermediate_size": 72,
        "num_hidden_layers": 5,
        "global_attn_every_n_layers": 3,
        "local_attention": 7,  # three to each side, of thirteen
        "eos_token_id": 2,
        "bos_token_id": 0,
        "cls_token_id": 0,
        "sep_token_id": 2,
    },
}
FORMATS = {"XLMRoberta": "xlm_roberta", "Electra": "electra", "MPNet": "mpnet"}
FORMATS["ModernBert"] = "modernbert"


def case(
    member: str, name: str, ours: Any, theirs: Any, left: bool = False, **options: Any
) -> Case:
    kind = next(kind for kind in SIZES if name.startswith(kind))
    side = ", padding left" if left else ""
    return Case(
        member + side,
        FORMATS[kind],
        partial(build, name, **{**SIZES[kind], **options}),
        partial(batch, kind == "Electra", left),
        ours,
        widened(theirs),
        (our_loss, their_loss) if ours is masked else None,
    )


BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
MIXED = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
    "full_attention": {"rope_type": "default", "rope_theta": 7000.0},
}
CLASSES, TAGS = "ForSequenceClassification", "ForTokenClassification"
SPANS = "ForQuestionAnswering"
CASES = [
    case("XLM-RoBERTa", "XLMRobertaModel", pooled, their_pooled),
    case("XLM-RoBERTa, masked tokens", "XLMRobertaForMaskedLM", masked, logits),
    case("XLM-RoBERTa, masked tokens", "XLMRobertaForMaskedLM", masked, logits, left=True),
    case("XLM-RoBERTa, classes", f"XLMRoberta{CLASSES}", encoders.classes, logits),
    case("ELECTRA", "ElectraModel", each, tokens, embedding_size=32),
    case("ELECTRA, generator", "ElectraForMaskedLM", masked, logits),
    case("ELECTRA, generator", "ElectraForMaskedLM", masked, logits, left=True),
    case("ELECTRA, discriminator", "ElectraForPreTraining", each, logits),
    case("ELECTRA, classes", f"Electra{CLASSES}", encoders.classes, logits),
    *(
        case(f"{member}, classes of tokens", f"{name}{TAGS}", encoders.tagged, logits)
        for member, name in (
            ("XLM-RoBERTa", "XLMRoberta"),
            ("ELECTRA", "Electra"),
            ("MPNet", "MPNet"),
            ("ModernBERT", "ModernBert"),
        )
    ),
    *(
        case(
            f"{member}, answers",
            f"{name}{SPANS}",
            encoders.spans,
            encoders.their_spans,
            num_labels=2,
        )
        for member, name in (
            ("XLM-RoBERTa", "XLMRoberta"),
            ("ELECTRA", "Electra"),
            ("MPNet", "MPNet"),
            ("ModernBERT", "ModernBert"),
        )
    ),
    case("MPNet", "MPNetModel", pooled, their_pooled),
    case("MPNet, masked tokens", "MPNetForMaskedLM", masked, logits),
    case("MPNet, masked tokens", "MPNetForMaskedLM", masked, logits, left=True),
    case("MPNet, classes", f"MPNet{CLASSES}", encoders.classes, logits),
    case("ModernBERT", "ModernBertModel", each, tokens),
    case("ModernBERT, masked tokens", "ModernBertForMaskedLM", masked, logits),
    case("ModernBERT, masked tokens", "ModernBertForMaskedLM", masked, logits, left=True),
    case(
        "ModernBERT, biases and layers of another order",
        "ModernBertForMaskedLM",
        masked,
        logits,
        num_hidden_layers=4,
        layer_types=MIXED,
        rope_parameters=ROPE,
        hidden_activation="silu",
        classifier_activation="relu",
        **BIASES,
    ),
    case("ModernBERT, classes", f"ModernBert{CLASSES}", encoders.classes, logits),
    case(
        "ModernBERT, classes by the mean",
        f"ModernBert{CLASSES}",
        encoders.classes,
        logits,
        left=True,
        classifier_pooling="mean",
    ),
]


def saved(name: str, folder: Path, **options: Any) -> Any:
    """A model of theirs in a folder, ``BertForMaskedLM`` or any kind here, its weights drawn at random.

    Args:
        options: of its config, over those of its kind.
    """
    bases = {"Bert": encoders.BERT, "Roberta": encoders.ROBERTA, "DistilBert": encoders.DISTILBERT}
    sizes = {**bases, **SIZES}
    kind = max((kind for kind in sizes if name.startswith(kind)), key=len)
    model = build(name, **{**sizes[kind], **options}).eval()
    randomise(model)
    model.save_pretrained(folder)
    return model
