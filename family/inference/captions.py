"""Sentences about pictures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
    most = int(min(own.most_new_tokens(1, NEW_TOKENS), model.longest_target))
    stops = {model.tokenizer.eos_id, *(own.stop_ids or ())}
    return [
        text
        for _, pixels in picture_batches(model, pictures, batch_size)
        for text in written(model, model.tokenizer, pixels, most, beams, begin, stops)
    ]


def written(
    model: Any,
    tokenizer: Any,
    pixel_values: Tensor,
    most: int,
    beams: int,
    begin: str = "",
    stops: Collection[int] = (),
) -> list[str]:
    """A sentence about each picture ``(batch, channels, height, width)``, of at most so many tokens together with
    what it begins with.

    Args:
        begin: as :func:`caption_pictures`'s.
        stops: ids that end a sentence; none is the tokenizer's end alone.

    Raises:
        ValueError: ``begin`` leaves no room for a sentence.
    """
    given: dict[str, Any] = {}
    if begin:
        ids = [model.bos_id, *tokenizer.encode(begin)]
        if len(ids) >= model.longest_target:
            raise ValueError(
                f"begin={begin!r} has {len(ids)} tokens: a sentence of {model.longest_target} has no room "
                "behind it."
            )
        most -= len(ids) - 1
        start = torch.tensor([ids], device=pixel_values.device)
        given["prompt"] = start.expand(len(pixel_values), -1)
    rows = model.generate(
        pixel_values,
        **given,
        max_new_tokens=most,
        beams=beams,
        stop_ids=stops or (tokenizer.eos_id,),
        pad_id=tokenizer.pad_id,
    )
    return [tokenizer.decode(row).strip() for row in rows.tolist()]
