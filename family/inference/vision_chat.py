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
        # Those that may be answered equally long together: none is cut for a longer neighbour.
        alike: dict[tuple[int, int], list[int]] = {}
        for i, row in enumerate(rows):
            room = longest - len(row)
            if room < 1:
                raise ValueError(
                    f"the question {some[i]!r} and its picture have {len(row)} tokens, which leaves no room "
                    f"for an answer in the model's {longest}."
                )
            most = int(min(room, max_new_tokens or own.most_new_tokens(len(row), NEW_TOKENS)))
            # A least length of both together is counted from the longest of a batch.
            counted = len(row) if own.min_length and not own.min_new_tokens else 0
            alike.setdefault((most, counted), []).append(i)
        answers = [""] * len(rows)
        for (most, _), places in alike.items():
            ids = pad_rows([rows[i] for i in places], -1).to(pixels.device)
            new = model.generate(
                pixels[places],
                ids.clamp(min=0),
                ids >= 0,
                max_new_tokens=most,
                beams=own.beams if beams is None else beams,
                stop_ids=stops,
                pad_id=-1,  # which no answer has
            )
            for i, row in zip(places, new.tolist(), strict=True):
                answers[i] = tokenizer.decode([token for token in row if token >= 0]).strip()
        found += answers
    return found
