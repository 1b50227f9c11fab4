"""Texts into what a model was trained to make of them: answers, summaries, translations ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from family.generation.choose import NEW_TOKENS
from family.generation.defaults import defaults_of
from family.generation.sampling import Sampling
from family.inference.batches import TEXTS, device_of
from family.inference.translation import translate
from family.inputs.encode import encode_sources
from family.models.member import longest_text


def answer_texts(
    model: Any, texts: Sequence[str], beams: int | None = None, batch_size: int = TEXTS
) -> list[str]:
    """What a model makes of each text; of none but spaces, nothing. A model of several tasks knows by the
    begin of a text which one is meant, as "summarize: ".

    Args:
        beams: None are those of ``model.generation``, or else 1.
        batch_size: texts at a time, at most.

    Raises:
        ValueError: see :func:`~family.inference.translation.translate`.
    """
    own = defaults_of(model)
    most = own.most_new_tokens(1, NEW_TOKENS)
    return translate(model, texts, own.beams if beams is None else beams, batch_size, most)


def answers(
    model: Any,
    text: str,
    sampling: Sampling | None = None,
    *,
    stop: Sequence[str] = (),
    parse_special: bool = False,
    **options: Any,
) -> list[str]:
    """What a model makes of one text, in one way or several.

    Args:
        sampling: greedy, unless said otherwise.
        stop: an answer ends before the first of these strings.
        parse_special: what spells a special token in the text is one.
        options: ``num``, ``max_new_tokens``, ``beams``, ``generator`` and others of the model's
            ``generate``.

    Raises:
        ValueError: a text that is empty or too long for the model, or options that do not go together.
    """
    tokenizer, longest = model.tokenizer, longest_text(model)
    ids = encode_sources(tokenizer, [text.strip()], parse_special)[0]
    if not text.strip():
        raise ValueError("the prompt is empty: it needs one token at least.")
    if len(ids) > longest:
        raise ValueError(
            f"a text of {len(ids)} tokens does not fit the model's max_tokens={longest}."
        )
    own, target = defaults_of(model), tokenizer.target
    rows = model.generate(
        torch.tensor([ids], device=device_of(model)),
        sampling=sampling,
        stop_ids={target.eos_id, *(own.stop_ids or ())},
        stop_strings=stop,
        pad_id=target.pad_id,
        **options,
    )
    made = [target.decode(row) for row in rows.tolist()]
    return [
        text[: min((text.find(s) for s in stop if s in text), default=len(text))] for text in made
    ]
