"""Texts and pictures as vectors, and how near they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from family.inference.batches import (
    PICTURES,
    TEXTS,
    Picture,
    caption_batches,
    chunks,
    device_of,
    most_tokens,
    picture_batches,
)


@torch.no_grad()
def embed_sentences(model: Any, texts: Sequence[str], batch_size: int = TEXTS) -> Tensor:
    """``(texts, dim)``, by a model that encodes sentences; spaces around a text and the end of one that is
    too long are left out, as in training.

    Raises:
        ValueError: a text without a token.
    """
    device, limit, rows = device_of(model), most_tokens(model), []
    for some in chunks([text.strip() for text in texts], batch_size):
        input_ids, mask = model.tokenizer.batch(some, limit)
        for text, read in zip(some, mask.any(1).tolist(), strict=True):
            if not read:
                raise ValueError(f"the text {text!r} has no token: there is nothing to embed.")
        rows.append(model.encode_text(input_ids.to(device), mask.to(device)).float())
    return torch.cat(rows).cpu() if rows else torch.empty(0, 0)


@torch.no_grad()
def embed_captions(model: Any, texts: Sequence[str], batch_size: int = TEXTS) -> Tensor:
    """``(texts, dim)`` of length 1, by a model that reads texts and pictures; spaces around a text are
    left out, as in training."""
    batches = caption_batches(model, texts, batch_size)
    rows = [model.encode_text(*inputs).float() for inputs in batches]
    return F.normalize(torch.cat(rows), dim=-1).cpu() if rows else torch.empty(0, 0)


@torch.no_grad()
def embed_pictures(model: Any, pictures: Sequence[Picture], batch_size: int = PICTURES) -> Tensor:
    """``(pictures, dim)`` of length 1, by such a model."""
    rows = [
        model.encode_image(pixels).float()
        for _, pixels in picture_batches(model, pictures, batch_size)
    ]
    return F.normalize(torch.cat(rows), dim=-1).cpu() if rows else torch.empty(0, 0)


def similarities(model: Any, pictures: Sequence[Picture], sentences: Sequence[str]) -> Tensor:
    """The cosine of each picture and each sentence, ``(pictures, sentences)``."""
    if not pictures or not sentences:
        return torch.empty(len(pictures), len(sentences))
    return embed_pictures(model, pictures) @ embed_captions(model, sentences).T
