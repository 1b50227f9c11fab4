"""Models that read pictures and texts in one stack."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import transformers
from cases.encoders import arguments, inputs
from cases.encoders import batch as texts
from harness import Batch, Case
from torch import Tensor, nn

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3,
    "intermediate_size": 80, "max_position_embeddings": 16, "image_size": 32, "patch_size": 8,
    "num_labels": 7,
}  # fmt: skip


def pairs(height: int = 32, width: int = 32) -> Batch:
    """Pictures of one size, texts of unequal length."""
    generator = torch.Generator().manual_seed(1)
    return {"pixel_values": torch.randn(3, 3, height, width, generator=generator), **texts(True)}


def padded() -> Batch:
    """Pictures of unequal sizes: one wide, one narrow and not of whole patches, one of one row."""
    found = pairs(40, 56)
    mask = torch.zeros(3, 40, 56, dtype=torch.bool)
    for row, (height, width) in enumerate([(32, 56), (40, 21), (8, 24)]):
        mask[row, :height, :width] = True
    return {**found, "pixel_mask": mask, "pixel_values": found["pixel_values"] * mask[:, None]}


def ours(model: Any, batch: Batch) -> Tensor:
    ids, mask, types = inputs(batch)
    return model(batch["pixel_values"], ids, mask, batch.get("pixel_mask"), types)


def asked(batch: Batch) -> dict[str, Tensor]:
    """As transformers calls them."""
    more = {"pixel_mask": batch["pixel_mask"].long()} if "pixel_mask" in batch else {}
    return {**arguments(batch), "pixel_values": batch["pixel_values"], **more}


def theirs(model: Any, batch: Batch) -> Tensor:
    return model(**asked(batch)).logits


def tokens(model: Any, batch: Batch) -> Tensor:
    """All words, and the pooled first one; their patches come in a random order."""
    ids, mask, types = inputs(batch)
    found = model.encode(batch["pixel_values"], ids, mask, batch.get("pixel_mask"), types)
    return torch.cat([found[:, : ids.shape[1]][mask], model.pooled(found, mask)])


def their_tokens(model: Any, batch: Batch) -> Tensor:
    found, mask = model(**asked(batch)), batch["mask"]
    words = found.last_hidden_state[:, : mask.shape[1]]
    return torch.cat([words[mask], found.pooler_output])


def made(model: str, **options: Any) -> nn.Module:
    return getattr(transformers, model)(transformers.ViltConfig(**{**SIZES, **options}))


ANSWERS = partial(made, "ViltForQuestionAnswering")
CASES = [
    Case("ViLT", "vilt", ANSWERS, padded, ours, theirs),
    Case("ViLT, one size", "vilt", ANSWERS, partial(pairs, 24, 48), ours, theirs),
    Case(
        "ViLT without classes", "vilt", partial(made, "ViltModel", qkv_bias=False), padded, tokens,
        their_tokens,
    ),
]  # fmt: skip
