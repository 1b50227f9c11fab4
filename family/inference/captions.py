"""Sentences about pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from family.generation.choose import NEW_TOKENS
from family.generation.defaults import defaults_of
from family.inference.batches import PICTURES, Picture, picture_batches


@torch.no_grad()
def caption_pictures(
    model: Any,
    pictures: Sequence[Picture],
    beams: int | None = None,
    batch_size: int = PICTURES,
    begin: str = "",
) -> list[str]:
    """What a model says of each picture.

    Args:
        begin: what a sentence begins with, and the model goes on from: ``de:`` of one that learned to caption in
            several languages by it. It is no part of the answer.
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
    start = begun(model, model.tokenizer, begin)
    most = int(min(own.most_new_tokens(1, NEW_TOKENS), model.longest_target))
    most -= 0 if start is None else start.shape[1] - 1
    for _, pixels in picture_batches(model, pictures, batch_size):
        rows = model.generate(
            pixels,
            prompt=None if start is None else start.to(pixels.device).expand(len(pixels), -1),
            max_new_tokens=most,
            beams=beams,
            stop_ids={model.tokenizer.eos_id, *(own.stop_ids or ())},
            pad_id=model.tokenizer.pad_id,
        )
        found += [model.tokenizer.decode(row).strip() for row in rows.tolist()]
    return found


def begun(model: Any, tokenizer: Any, begin: str) -> Tensor | None:
    """What decoding starts from, ``(1, tokens)``; None of nothing.

    Raises:
        ValueError: it leaves no room for a sentence.
    """
    if not begin:
        return None
    ids = [model.bos_id, *tokenizer.encode(begin)]
    if len(ids) >= model.longest_target:
        raise ValueError(
            f"begin={begin!r} has {len(ids)} tokens: a sentence of {model.longest_target} has no room behind it."
        )
    return torch.tensor([ids])
