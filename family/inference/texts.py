"""Texts that go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from family.generation.sampling import Sampling
from family.inference.batches import device_of
from family.inference.pieces import pieces
from family.inputs.encode import encode_prompt
from family.models.member import longest_text

NEW_TOKENS = 200
"""How many follow a prompt where nobody says."""


def continue_texts(
    model: Any,
    prompts: Sequence[str],
    max_new_tokens: int | None = None,
    sampling: Sampling = Sampling(),
    seed: int = 0,
    parse_special: bool = False,
) -> list[str]:
    """What a language model writes behind each prompt.

    Args:
        max_new_tokens: None is 200, or what room there is.
        sampling: greedy, unless said otherwise.
        seed: of the random numbers of all prompts together.
        parse_special: what spells a special token in a prompt is one, as prompts in a published format
            mean it; otherwise it is text.

    Raises:
        ValueError: see :func:`continuation`.
    """
    generator = random_numbers(model, seed)
    return [
        "".join(continuation(model, prompt, max_new_tokens, sampling, generator, parse_special))
        for prompt in prompts
    ]


def random_numbers(model: Any, seed: int) -> torch.Generator:
    """Where the model is."""
    return torch.Generator(device_of(model)).manual_seed(seed)


def continuation(
    model: Any,
    prompt: str,
    max_new_tokens: int | None,
    sampling: Sampling,
    generator: torch.Generator,
    parse_special: bool = False,
) -> Iterator[str]:
    """The same of one prompt, piece by piece, as soon as they are known.

    Raises:
        ValueError: at once: a model that cannot generate, a character that its tokenizer does not
            know, or a prompt that is empty or, with the new tokens, longer than the context.
    """
    ids = encode_prompt(model.tokenizer, prompt, parse_special)
    count = new_tokens(len(ids), max_new_tokens, longest_text(model))
    return written(model, ids, count, sampling, generator, before=ids)


def written(
    model: Any,
    ids: list[int],
    count: int,
    sampling: Sampling,
    generator: torch.Generator,
    before: Sequence[int] = (),
) -> Iterator[str]:
    """What follows ids, piece by piece, until the text or the turn ends.

    Args:
        before: the ids of the text that goes on; none where an answer begins one of its own.

    Raises:
        ValueError: at once: a model that cannot generate.
    """
    if not hasattr(model, "stream"):
        raise ValueError(f"a {type(model).__name__} cannot generate: it has no method stream.")
    tokens = model.stream(
        torch.tensor([ids], dtype=torch.long, device=device_of(model)),
        max_new_tokens=count,
        sampling=sampling,
        generator=generator,
        stop_ids=model.tokenizer.stop_ids(),
    )
    return pieces(model.tokenizer, tokens, before)


def new_tokens(prompt: int, wanted: int | None, context: float) -> int:
    """How many tokens follow a prompt of so many.

    Raises:
        ValueError: the prompt is empty, or the model's context too short for both.
    """
    if prompt == 0:
        raise ValueError("the prompt is empty: it needs one token at least.")
    count = int(max(1, min(NEW_TOKENS, context - prompt))) if wanted is None else wanted
    if count < 1:
        raise ValueError(f"max_new_tokens must be at least 1, not {count}.")
    if prompt + count > context:
        raise ValueError(
            f"a prompt of {prompt} tokens and {count} new ones do not fit the model's context of "
            f"{context} tokens."
        )
    return count
