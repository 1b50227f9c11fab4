"""Encoders: BERT, RoBERTa, DistilBERT, with each of their heads."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import transformers
from cases.causal import VOCAB, our_loss, their_loss
from harness import Batch, Case
from torch import Tensor, nn

PAD, CLASSES, TOKENS = 1, 5, 13
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "pad_token_id": PAD,
    "num_labels": CLASSES,
}


def batch(token_types: bool) -> Batch:
    """Three texts of unequal length; of BERT's, the second half is another segment."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, VOCAB, (3, TOKENS), generator=generator)
    mask = torch.arange(TOKENS) < torch.tensor([13, 9, 4])[:, None]
    inputs = {"input_ids": ids.masked_fill(~mask, PAD), "mask": mask}
    if token_types:
        inputs["token_types"] = (torch.arange(TOKENS) > 5).long().expand(3, -1)
    return inputs


def arguments(batch: Batch) -> dict[str, Tensor]:
    """As transformers calls them."""
    types = {"token_type_ids": batch["token_types"]} if "token_types" in batch else {}
    return {"input_ids": batch["input_ids"], "attention_mask": batch["mask"].long(), **types}


def inputs(batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
    return batch["input_ids"], batch["mask"], batch.get("token_types")


def masked(model: Any, batch: Batch) -> Tensor:
    return model(*inputs(batch))[batch["mask"]]


def their_masked(model: Any, batch: Batch) -> Tensor:
    return model(**arguments(batch)).logits[batch["mask"]]


def classes(model: Any, batch: Batch) -> Tensor:
    return model(*inputs(batch))


def their_classes(model: Any, batch: Batch) -> Tensor:
    return model(**arguments(batch)).logits


def tagged(model: Any, batch: Batch) -> Tensor:
    """The classes of each token."""
    assert model.facts.task == "Tagging"
    return model(*inputs(batch))[batch["mask"]]


def spans(model: Any, batch: Batch) -> Tensor:
    """How likely the answer begins at each token, and ends."""
    assert model.facts.task == "QuestionAnswering"
    return model(*inputs(batch))[batch["mask"]]


def their_spans(model: Any, batch: Batch) -> Tensor:
    found = model(**arguments(batch))
    return torch.stack([found.start_logits, found.end_logits], -1)[batch["mask"]]


def both(model: Any, batch: Batch) -> Tensor:
    """Masked tokens, and whether the second text follows the first."""
    tokens = model.encode(*inputs(batch))
    answers = model.masked_logits(tokens)[batch["mask"]], model.class_logits(tokens, batch["mask"])
    return torch.cat([answer.flatten() for answer in answers])


def their_both(model: Any, batch: Batch) -> Tensor:
    found = model(**arguments(batch))
    answers = found.prediction_logits[batch["mask"]], found.seq_relationship_logits
    return torch.cat([answer.flatten() for answer in answers])


def bare(model: Any, batch: Batch) -> Tensor:
    """All tokens, and the pooled first one."""
    tokens = model(*inputs(batch))
    return torch.cat([tokens[batch["mask"]], model.pooled(tokens, batch["mask"])])


def their_bare(model: Any, batch: Batch) -> Tensor:
    found = model(**arguments(batch))
    return torch.cat([found.last_hidden_state[batch["mask"]], found.pooler_output])


def build(name: str, **options: Any) -> nn.Module:
    """One of transformers' models, small."""
    model = getattr(transformers, name)
    return model(model.config_class(**{**SIZES, **options}))


def case(member: str, name: str, ours: Any, theirs: Any, **options: Any) -> Case:
    family = name.partition("For")[0].removesuffix("Model").lower()
    losses = (our_loss, their_loss) if ours is masked else None
    return Case(
        member,
        family,
        partial(build, name, **options),
        partial(batch, family == "bert"),
        ours,
        theirs,
        losses,
    )


BERT = {"intermediate_size": 80, "max_position_embeddings": 16}
ROBERTA = {"intermediate_size": 80, "max_position_embeddings": 18, "type_vocab_size": 1}
DISTILBERT = {"hidden_dim": 80, "max_position_embeddings": 16}
CASES = [
    case("BERT", "BertModel", bare, their_bare, **BERT, hidden_act="gelu_new"),
    case("BERT, masked tokens", "BertForMaskedLM", masked, their_masked, **BERT),
    case("BERT, pre-training", "BertForPreTraining", both, their_both, **BERT),
    case("BERT, classes", "BertForSequenceClassification", classes, their_classes, **BERT),
    case("BERT, classes of tokens", "BertForTokenClassification", tagged, their_masked, **BERT),
    case("RoBERTa", "RobertaModel", bare, their_bare, **ROBERTA),
    case("RoBERTa, masked tokens", "RobertaForMaskedLM", masked, their_masked, **ROBERTA),
    case("RoBERTa, classes", "RobertaForSequenceClassification", classes, their_classes, **ROBERTA),
    case(
        "RoBERTa, classes of tokens",
        "RobertaForTokenClassification",
        tagged,
        their_masked,
        **ROBERTA,
    ),
    case("DistilBERT, masked tokens", "DistilBertForMaskedLM", masked, their_masked, **DISTILBERT),
    case(
        "DistilBERT, classes",
        "DistilBertForSequenceClassification",
        classes,
        their_classes,
        **DISTILBERT,
    ),
    case(
        "DistilBERT, classes of tokens",
        "DistilBertForTokenClassification",
        tagged,
        their_masked,
        **DISTILBERT,
    ),
    *(
        case(
            f"{member}, answers",
            f"{name}ForQuestionAnswering",
            spans,
            their_spans,
            num_labels=2,
            **sizes,
        )
        for member, name, sizes in (
            ("BERT", "Bert", BERT),
            ("RoBERTa", "Roberta", ROBERTA),
            ("DistilBERT", "DistilBert", DISTILBERT),
        )
    ),
]
