"""Texts that go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from family.generation.defaults import Generation, beams_of, defaults_of
from family.generation.sampling import Sampling
from family.inference.batches import device_of
from family.inference.pieces import pieces, until
from family.inputs.encode import encode_prompt
from family.models.member import longest_text

NEW_TOKENS = 200
"""How many follow a prompt where neither the call nor the model's ``generation`` says."""


def continue_texts(
    model: Any,
    prompts: Sequence[str],
    max_new_tokens: int | None = None,
    sampling: Sampling | None = None,
    seed: int = 0,
    num: int | None = None,
    parse_special: bool = False,
    **options: Any,
) -> list[Any]:
    """What a language model writes behind each prompt: prompt and text together are one text.

    Args:
        max_new_tokens: None is what ``model.generation`` says, or 200, or what room there is.
        sampling: greedy, unless said otherwise.
        seed: of the random numbers of all prompts together.
        num: so many texts of each prompt, a list of them in place of one text.
        parse_special: what spells a special token in a prompt is one, as prompts in a published format
            mean it; otherwise it is text.
        options: ``beams``, ``stop`` and others, see :func:`continuations`.

    Raises:
        ValueError: see :func:`continuations`.
    """
    generator = random_numbers(model, seed)
    found = [
        ["".join(one) for one in texts]
        for texts in (
            continuations(
                model,
                prompt,
                max_new_tokens,
                sampling,
                generator,
                num or 1,
                parse_special=parse_special,
                **options,
            )
            for prompt in prompts
        )
    ]
    return [texts[0] for texts in found] if num is None else found


def random_numbers(model: Any, seed: int) -> torch.Generator:
    """Where the model is."""
    return torch.Generator(device_of(model)).manual_seed(seed)


def sampling_of(model: Any, usual: Sampling, **given: Any) -> Sampling:
    """How a model is drawn from: as its ``generation`` says if it draws, or else as usual; with what is
    given in its place.

    Raises:
        ValueError: a value that makes no sense.
    """
    own = defaults_of(model).sampling
    if own.temperature == 0:
        own = replace(usual, repetition_penalty=own.repetition_penalty)
    return replace(own, **{name: value for name, value in given.items() if value is not None})


def continuations(
    model: Any,
    prompt: str,
    max_new_tokens: int | None,
    sampling: Sampling | None,
    generator: torch.Generator,
    num: int = 1,
    *,
    beams: int | None = None,
    stop: str | Sequence[str] = (),
    parse_special: bool = False,
    **options: Any,
) -> Iterator[Iterator[str]]:
    """``num`` texts that follow a prompt, piece by piece, as soon as they are known.

    Args:
        num: drawn one after another, or the best of the beams.
        beams: of a search; its texts come whole. None is as many as ``model.generation`` says, or one
            where something is drawn.
        stop: a text ends before the first of these strings.
        parse_special: see :func:`continue_texts`.
        options: ``min_new_tokens``, ``no_repeat_ngram``, ``length_penalty``, ``stop_ids``: see
            :func:`family.generation.choose.chosen`.

    Raises:
        ValueError: at once: a model that cannot generate, a character that its tokenizer does not
            know, a prompt that is empty or, with the new tokens, longer than the context, or options
            that do not go together.
    """
    if not hasattr(model, "stream"):
        raise ValueError(f"a {type(model).__name__} cannot generate: it has no method stream.")
    ids, count = planned(model, prompt, max_new_tokens, parse_special)
    stop = [stop] if isinstance(stop, str) else stop
    if "" in stop:
        raise ValueError("an empty stop string would end every text at once.")
    drawn = sampling is not None and sampling.temperature > 0
    beams = beams_of(model, sampling) if beams is None else beams
    if beams == 1 and (num == 1 or drawn):
        texts = [
            written(model, ids, count, sampling, generator, ids, **options) for _ in range(num)
        ]
        return (until(text, stop) for text in texts)
    # A search ends at them too; what it finds is ranked by what is shown.
    options |= {"sampling": sampling, "beams": beams, "num": num, "stop_strings": stop}
    options.setdefault("stop_ids", stops_of(model))
    # Padded by what no text holds.
    start = torch.tensor([ids], dtype=torch.long, device=device_of(model))
    rows = model.generate(start, max_new_tokens=count, pad_id=-1, **options)
    kept = ([token for token in row if token >= 0] for row in rows.tolist())
    return iter([until(pieces(model.tokenizer, row, ids), stop) for row in kept])


def planned(
    model: Any, prompt: str, max_new_tokens: int | None, parse_special: bool = False
) -> tuple[list[int], int]:
    """The ids of a prompt, and how many follow them at most.

    Raises:
        ValueError: see :func:`continuations`.
    """
    ids = encode_prompt(model.tokenizer, prompt, parse_special)
    return ids, new_tokens(model, len(ids), max_new_tokens)


def written(
    model: Any,
    ids: list[int],
    count: int,
    sampling: Sampling | None,
    generator: torch.Generator,
    before: Sequence[int] = (),
    **options: Any,
) -> Iterator[str]:
    """What follows ids, piece by piece, until the text or the turn ends.

    Args:
        before: the ids of the text that goes on; none where an answer begins one of its own.
        options: of the model's ``stream``; ``stop_ids`` are those of :func:`stops_of` unless given.

    Raises:
        ValueError: at once: a model that cannot generate.
    """
    if not hasattr(model, "stream"):
        raise ValueError(f"a {type(model).__name__} cannot generate: it has no method stream.")
    tokens = model.stream(
        torch.tensor([ids], dtype=torch.long, device=device_of(model)),
        max_new_tokens=count,
        sampling=sampling or Sampling(defaults_of(model).sampling.repetition_penalty),
        generator=generator,
        **{"stop_ids": stops_of(model), **options},
    )
    return pieces(model.tokenizer, tokens, before)


def stops_of(model: Any, tokenizer: Any = None) -> set[int]:
    """What ends a text, by the model's ``generation`` and its tokenizer: the end of a turn too. Nothing
    does, where ``generation`` has no ``stop_ids`` on purpose, ``()``.

    Args:
        tokenizer: in place of the model's own.
    """
    own = getattr(model, "generation", None) or Generation()
    if own.stop_ids == ():
        return set()
    known = model.tokenizer if tokenizer is None else tokenizer
    return (set() if known is None else known.stop_ids()) | set(own.stop_ids or ())


def new_tokens(model: Any, prompt: int, wanted: int | None, usual: int = NEW_TOKENS) -> int:
    """How many tokens follow a prompt of so many.

    Args:
        wanted: None is what ``model.generation`` says, or ``usual``, or what room there is.

    Raises:
        ValueError: the prompt is empty, or the model's context too short for both.
    """
    context = longest_text(model)
    if prompt == 0:
        raise ValueError("the prompt is empty: it needs one token at least.")
    count = 1 if wanted is None else wanted
    if wanted is None and prompt < context:
        count = int(min(defaults_of(model).most_new_tokens(prompt, usual), context - prompt))
    if count < 1:
        raise ValueError(f"max_new_tokens must be at least 1, not {count}.")
    if prompt + count > context:
        raise ValueError(
            f"a prompt of {prompt} tokens and {count} new ones do not fit the model's context of "
            f"{context} tokens."
        )
    return count
