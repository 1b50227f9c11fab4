"""Sentences about pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from family.generation.choose import NEW_TOKENS
from family.generation.defaults import defaults_of
from family.inference.batches import PICTURES, Picture, picture_batches


@torch.no_grad()
def caption_pictures(
    model: Any,
    pictures: Sequence[Picture],
    beams: int | None = None,
    batch_size: int = PICTURES,
) -> list[str]:
    """What a model says of each picture.

    Args:
        beams: None are those of ``model.generation``, or else 1.
        batch_size: pictures at a time, at most.

    Raises:
        ValueError: a picture that cannot be read, or fewer than one beam.
    """
    own = defaults_of(model)
    beams = own.beams if beams is None else beams
    if beams < 1:
        raise ValueError(f"beams must be at least 1, not {beams}.")
    found = []
    most = int(min(own.most_new_tokens(1, NEW_TOKENS), model.longest_target))
    for _, pixels in picture_batches(model, pictures, batch_size):
        rows = model.generate(
            pixels,
            max_new_tokens=most,
            beams=beams,
            stop_ids={model.tokenizer.eos_id, *(own.stop_ids or ())},
            pad_id=model.tokenizer.pad_id,
        )
        found += [model.tokenizer.decode(row) for row in rows.tolist()]
    return found
