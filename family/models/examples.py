"""What members read, drawn at random: for tests, exports and profiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """What a ``forward`` takes and gives.

    Args:
        draw: ``draw(model, more)`` is a batch by name, for a model of any size; greater ``more``,
            larger sizes.
        dynamic: name -> the dimensions that may differ from call to call.
        outputs: the names of what it gives.
    """

    draw: Callable[[Any, int], dict[str, Tensor]]
    dynamic: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...] = ("logits",)


def text_rows(model: Any, more: int, longest: int | None = None) -> dict[str, Tensor]:
    """``input_ids`` and ``mask`` ``(batch, tokens)``: rows of unequal length, filled at the right."""
    own: int = getattr(getattr(model, "config", None), "max_tokens", 1024)
    limit = longest or own
    tokens = min(12 + 5 * more, limit)
    lengths = torch.arange(tokens, tokens - 2 - more, -1).clamp(min=1)
    mask = torch.arange(tokens) < lengths[:, None]
    return {"input_ids": torch.randint(model.vocab_size, mask.shape), "mask": mask}


def pairs(model: Any, more: int) -> dict[str, Tensor]:
    """A ``source``, and what is written so far of its ``target``."""
    source, target = text_rows(model, more), text_rows(model, more)
    vocab_size = getattr(model, "target_vocab_size", None) or model.vocab_size
    return {
        "source": source["input_ids"],
        "target": target["input_ids"][:, 2:] % vocab_size,
        "source_mask": source["mask"],
    }


def pictures(model: Any, more: int) -> dict[str, Tensor]:
    """``pixel_values (batch, 3, height, width)`` of the model's own size, where it has one."""
    return {"pixel_values": torch.randn(2 + more, 3, *getattr(model, "image_size", (64, 64)))}


def scenes(model: Any, more: int) -> dict[str, Tensor]:
    """Pictures of unequal size, filled below and at the right, and the mask that says so."""
    height, width = (256, 256) if model.preprocess is None else model.preprocess.size
    height, width = height + 32 * more, width + 64 * more
    mask = torch.ones(2 + more, height, width, dtype=torch.bool)
    mask[1, height - 40 :] = mask[1, :, width - 24 :] = False
    return {"pixel_values": torch.randn(2 + more, 3, height, width), "pixel_mask": mask}


def pictures_and_texts(model: Any, more: int) -> dict[str, Tensor]:
    """Pictures, and more texts than pictures."""
    size = getattr(model.image, "image_size", (64, 64))
    seen = {"pixel_values": torch.randn(2 + more, 3, *size)}
    return seen | text_rows(model, more + 1, model.text.config.max_tokens)


def questions(model: Any, more: int) -> dict[str, Tensor]:
    """As many texts as pictures."""
    return pictures(model, more) | text_rows(model, more)


def illustrated(model: Any, more: int) -> dict[str, Tensor]:
    """Texts with the slots of a picture each behind their first token, and the pictures."""
    limit = model.config.max_tokens - model.slots
    rows, known = text_rows(model, more, limit), min(model.image_id, model.language.vocab_size)
    ids, slots = rows["input_ids"] % known, (len(rows["mask"]), model.slots)
    parts = ids[:, :1], torch.full(slots, model.image_id), ids[:, 1:]
    kept = rows["mask"][:, :1], torch.ones(slots, dtype=torch.bool), rows["mask"][:, 1:]
    return {
        "pixel_values": torch.randn(len(ids), 3, *model.image_size),
        "input_ids": torch.cat(parts, dim=1),
        "mask": torch.cat(kept, dim=1),
    }


def captioned(model: Any, more: int) -> dict[str, Tensor]:
    """Pictures as ``source``, and what is written so far of their sentences."""
    target = text_rows(model, more, model.decoder_config.max_tokens)["input_ids"]
    return {"source": torch.randn(len(target), 3, *model.image_size), "target": target}


def noise_and_texts(model: Any, more: int) -> dict[str, Tensor]:
    """Pictures, or latents, that are partly ``noisy``, the ``time`` of each, and as many texts."""
    noisy = torch.randn(2 + more, *model.shape)
    return {"noisy": noisy, "time": torch.rand(len(noisy))} | text_rows(
        model, more, model.text_tokens
    )


def tokens_and_texts(model: Any, more: int) -> dict[str, Tensor]:
    """The ``image_ids`` of pictures, in an image tokenizer's codes, and as many texts."""
    ids = torch.randint(model.image_tokenizer.vocab_size, (2 + more, model.image_tokens))
    return {"image_ids": ids} | text_rows(model, more, model.text_tokens)


def recordings(model: Any, more: int) -> dict[str, Tensor]:
    """Log-mel frames as ``source``, and what is written so far of their text."""
    target = text_rows(model, more)["input_ids"]
    frames = 2 * model.source_embedding.max_tokens
    return {"source": torch.randn(len(target), model.mels, frames), "target": target}


def clips(model: Any, more: int) -> dict[str, Tensor]:
    """``pixel_values (batch, frames, 3, height, width)``."""
    return {"pixel_values": torch.randn(2 + more, *model.embedding.clip)}


def series(model: Any, more: int) -> dict[str, Tensor]:
    """``values (batch, steps, channels)`` of unequal length, zeros behind each, and their ``step_mask``."""
    steps = 12 + 5 * more
    lengths = torch.arange(steps, steps - 2 - more, -1).clamp(min=1)
    mask = torch.arange(steps) < lengths[:, None]
    values = torch.randn(*mask.shape, model.channels)
    return {"values": values.masked_fill(~mask[..., None], 0.0), "step_mask": mask}


ROWS: Mapping[str, tuple[int, ...]] = {"input_ids": (0, 1), "mask": (0, 1)}
PICTURE: Mapping[str, tuple[int, ...]] = {"pixel_values": (0,)}
TEXT = Inputs(text_rows, ROWS)
SENTENCES = Inputs(text_rows, ROWS, ("sentence_embedding",))
REWARDS = Inputs(text_rows, ROWS, ("rewards",))
PAIRS = Inputs(pairs, {"source": (0, 1), "target": (0, 1), "source_mask": (0, 1)})
PICTURES = Inputs(pictures, PICTURE)
RECONSTRUCTIONS = Inputs(pictures, PICTURE, ("reconstruction",))
SCENES = Inputs(scenes, {"pixel_values": (0, 2, 3), "pixel_mask": (0, 1, 2)}, ("logits", "boxes"))
PICTURES_AND_TEXTS = Inputs(pictures_and_texts, {**PICTURE, **ROWS})
QUESTIONS = Inputs(questions, {**PICTURE, **ROWS})
NOISE_AND_TEXTS = Inputs(noise_and_texts, {"noisy": (0,), "time": (0,), **ROWS}, ("velocity",))
TOKENS_AND_TEXTS = Inputs(tokens_and_texts, {"image_ids": (0,), **ROWS}, ("words", "codes"))
ILLUSTRATED = Inputs(illustrated, {**PICTURE, **ROWS})
SOUND = Inputs(recordings, {"source": (0,), "target": (0, 1)})
CAPTIONED = Inputs(captioned, {"source": (0,), "target": (0, 1)})
CLIPS = Inputs(clips, PICTURE)
SERIES = Inputs(series, {"values": (0, 1), "step_mask": (0, 1)})
