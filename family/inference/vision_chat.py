"""Questions about pictures to answers in words, by a model of conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from family.generation.choose import NEW_TOKENS
from family.generation.defaults import defaults_of
from family.inference.batches import PICTURES, Picture, picture_batches
from family.inputs.conversation import prompt_ids
from family.inputs.encode import pad_rows
from family.inputs.image_slots import DESCRIBE, IMAGE, image_id_of, place_pictures, spread
from family.models.member import longest_text


@torch.no_grad()
def talk_about_pictures(
    model: Any,
    pictures: Sequence[Picture],
    questions: Sequence[str] | None = None,
    batch_size: int = PICTURES,
    beams: int | None = None,
    max_new_tokens: int | None = None,
) -> list[str]:
    """What a model of conversations answers, through its chat template, to a question about each picture.

    Args:
        questions: one a picture, which stands first in it, or where ``<image>`` does; None asks for a
            description.
        batch_size: pictures at a time, at most.
        beams, max_new_tokens: None are those of ``model.generation``, or else 1, and as many as fit.

    Raises:
        ValueError: not as many questions as pictures, one that is empty or with more than one ``<image>``, a
            picture that cannot be read, or a question that leaves no room for an answer.
    """
    asked = [DESCRIBE] * len(pictures) if questions is None else list(questions)
    if len(pictures) != len(asked):
        raise ValueError(f"{len(pictures)} pictures but {len(asked)} questions: give as many.")
    if not all(one.strip() for one in asked):
        raise ValueError("a question is empty: ask something of the picture.")
    tokenizer, own = model.tokenizer, defaults_of(model)
    image_id, longest = image_id_of(tokenizer), longest_text(model)
    stops = tokenizer.stop_ids() | {*(own.stop_ids or ())}
    found: list[str] = []
    for batch, pixels in picture_batches(model, pictures, batch_size):
        some = asked[len(found) : len(found) + len(batch)]
        talks = [place_pictures([{"role": "user", "content": one}], 1) for one in some]
        rows = [spread(prompt_ids(tokenizer, t, (IMAGE,)), image_id, model.slots) for t in talks]
        ids = pad_rows(rows, -1).to(pixels.device)
        room = longest - ids.shape[1]
        if room < 1:
            long = max(range(len(rows)), key=lambda i: len(rows[i]))
            raise ValueError(
                f"the question {some[long]!r} and its picture have {len(rows[long])} tokens, which leaves "
                f"no room for an answer in the model's {longest}."
            )
        most = own.most_new_tokens(ids.shape[1], NEW_TOKENS)
        new = model.generate(
            pixels,
            ids.clamp(min=0),
            ids >= 0,
            max_new_tokens=int(min(room, max_new_tokens or most)),
            beams=own.beams if beams is None else beams,
            stop_ids=stops,
            pad_id=-1,  # which no answer has
        )
        found += [tokenizer.decode([i for i in row if i >= 0]).strip() for row in new.tolist()]
    return found
