"""Beam search or sampling, as a member's ``generate`` is asked for."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from family.generation.beam import beam_search
from family.generation.defaults import beams_of, defaults_of, draws
from family.generation.generate import Decodes, generate, stream, together
from family.generation.hooks import LogitsHook, TokenRules
from family.generation.rules import StopStrings
from family.generation.sampling import Sampling
from family.generation.speculative import speculative_stream
from family.generation.window import windowed

NEW_TOKENS = 256
"""At most, where neither the call nor the model's ``generation`` says how many."""


@dataclass(frozen=True)
class Choice:
    """What a call of ``generate`` comes to, with what the model's ``generation`` says beside it."""

    beams: int
    num: int
    length_penalty: float
    sampling: Sampling
    shared: dict[str, Any]
    """Options of search and sampling alike."""


def chosen(
    model: Any,
    begun: int,
    room: float = math.inf,
    *,
    max_new_tokens: int | None = None,
    min_new_tokens: int | None = None,
    beams: int | None = None,
    sampling: Sampling | None = None,
    num: int = 1,
    length_penalty: float | None = None,
    no_repeat_ngram: int | None = None,
    stop_ids: Collection[int] | None = None,
    stop_strings: str | Sequence[str] = (),
    pad_id: int | None = None,
    hook: LogitsHook | None = None,
) -> Choice:
    """Fill in what a call leaves open, by ``model.generation`` and the model's tokenizer.

    Args:
        begun: tokens of the prompt, or that a decoder begins from.
        room: new tokens that fit.
        max_new_tokens: None is the model's own limit, or 256, within the room.
        min_new_tokens: no stop token comes before so many others.
        beams: None is the model's own number, or 1 where something is drawn.
        sampling: None is greedy, with the model's own repetition penalty.
        num: texts of each row, drawn or the best of the beams; they follow each other.
        no_repeat_ngram: no so many tokens in a row come twice; 0 is no limit.
        stop_ids: tokens that end a text and are no part of it; ``()`` lets it go on. None are those of
            ``model.generation``, or else of the model's tokenizer.
        stop_strings: what ends a text too, and is part of it; needs the model's tokenizer.
        pad_id: what stands after the end.

    Raises:
        ValueError: one sentence, of what cannot be or does not go together.
    """
    own = defaults_of(model)
    if sampling is None:
        sampling = Sampling(own.sampling.repetition_penalty)
    if beams is None:
        beams = beams_of(model, sampling)
    if beams < 1:
        raise ValueError(f"beams={beams} must be at least 1.")
    if beams > 1 and draws(sampling):
        raise ValueError(
            f"beams={beams} search and draw nothing: they go without a sampling, but for its "
            "repetition_penalty."
        )
    if num < 1:
        raise ValueError(f"num={num} must be at least 1.")
    if num > 1 and beams == 1 and sampling.temperature == 0:
        raise ValueError(
            f"num={num} greedy texts would be the same: give a sampling with a temperature, or "
            f"beams={num} or more."
        )
    if 1 < beams < num:
        raise ValueError(f"num={num} is more than beams={beams} find.")
    if max_new_tokens is None:
        max_new_tokens = int(max(1, min(own.most_new_tokens(begun, NEW_TOKENS), room)))
    elif max_new_tokens < 0:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 0.")
    if min_new_tokens is None:
        least = own.min_new_tokens or (own.min_length or 0) - begun
        min_new_tokens = max(0, min(least, max_new_tokens))
    elif not 0 <= min_new_tokens <= max_new_tokens:
        raise ValueError(
            f"min_new_tokens={min_new_tokens} must be from 0 to max_new_tokens={max_new_tokens}."
        )
    ngram = own.no_repeat_ngram if no_repeat_ngram is None else no_repeat_ngram
    if ngram < 0:
        raise ValueError(f"no_repeat_ngram={ngram} must be at least 0.")
    shared = {
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": min_new_tokens,
        "no_repeat_ngram": ngram,
        "stop_ids": own.stop_ids or () if stop_ids is None else stop_ids,
        "pad_id": own.pad_id if pad_id is None else pad_id,
        "ends": ending(model, stop_strings),
        "hook": after(own.rules, hook),
    }
    penalty = own.length_penalty if length_penalty is None else length_penalty
    return Choice(beams, num, penalty, sampling, shared)


def ending(model: Any, stop_strings: str | Sequence[str]) -> StopStrings | None:
    """What tells that a stop string is complete; None without any.

    Raises:
        ValueError: an empty one, or a model without a tokenizer.
    """
    strings = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
    if not strings:
        return None
    if "" in strings:
        raise ValueError("an empty stop string would end every text at once.")
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise ValueError("stop_strings need a tokenizer: set model.tokenizer.")
    return StopStrings(getattr(tokenizer, "target", tokenizer), strings)


def after(rules: TokenRules, hook: LogitsHook | None) -> LogitsHook | None:
    """The model's own rules, then a hook."""
    if rules == TokenRules():
        return hook
    return rules if hook is None else lambda logits, tokens: hook(rules(logits, tokens), tokens)


def search_or_sample(
    model: Decodes,
    inputs: tuple[Any, ...],
    *,
    prompt: Tensor | None = None,
    prompt_mask: Tensor | None = None,
    begun: int,
    room: float = math.inf,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    draft: Any = None,
    draft_tokens: int = 4,
    **options: Any,
) -> Tensor:
    """Beam search with several beams, or else :func:`~family.generation.generate`.

    Args:
        prompt: ``(batch, tokens)`` that repetitions are counted from, with its mask.
        begun, room, options: see :func:`chosen`.
        generator: of the random numbers, on the device of the model; one for each row draws what the row
            would draw by itself.
        draft, draft_tokens: who guesses so many tokens ahead, see
            :func:`~family.generation.speculative.speculative_stream`; None is nobody.

    Returns:
        ``(batch * num, at most max_new_tokens)``, padded.
    """
    choice = chosen(model, begun, room, **options)
    model = reader(model, choice, begun, room, draft, draft_tokens, generator)
    options = {**choice.shared, "prompt": prompt, "prompt_mask": prompt_mask}
    if choice.beams > 1:
        options["repetition_penalty"] = choice.sampling.repetition_penalty
        options |= {"length_penalty": choice.length_penalty, "num": choice.num}
        return beam_search(model, inputs, beams=choice.beams, **options)[0]
    if choice.num > 1:
        inputs = tuple(map(lambda value: repeated(value, choice.num), inputs))
        options |= {n: repeated(options[n], choice.num) for n in ("prompt", "prompt_mask")}
    options |= {"sampling": choice.sampling, "generator": generator}
    if draft is None:
        return generate(model, inputs, **options)
    options |= {"draft": draft, "draft_tokens": draft_tokens}
    return together(speculative_stream(model, inputs, **options), inputs)


def reader(
    model: Decodes,
    choice: Choice,
    begun: int,
    room: float,
    draft: Any,
    draft_tokens: int,
    generator: Any,
) -> Decodes:
    """The model, or one that reads the end of a text alone, see :func:`windowed`; what a draft cannot guess for
    is refused in one sentence."""
    reads = windowed(model, begun, choice.shared["max_new_tokens"], room)
    if draft is None:
        return reads
    if choice.beams > 1:
        raise ValueError(f"a draft guesses for one beam, not beams={choice.beams}: give beams=1.")
    if isinstance(generator, Sequence):
        raise ValueError("with a draft all rows draw from one generator: give no list of them.")
    if draft_tokens < 1:
        raise ValueError(f"draft_tokens={draft_tokens} must be at least 1.")
    if reads is not model:
        raise ValueError(
            "a text that outgrows what the model was trained on is read anew at each token: give no draft, or "
            "a smaller max_new_tokens."
        )
    return reads


def repeated(value: Any, times: int) -> Any:
    """Each row so many times, one after another."""
    return value.repeat_interleave(times, 0) if isinstance(value, Tensor) else value


def sampled_stream(
    model: Decodes,
    inputs: tuple[Any, ...],
    *,
    prompt: Tensor | None = None,
    prompt_mask: Tensor | None = None,
    begun: int,
    room: float = math.inf,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    draft: Any = None,
    draft_tokens: int = 4,
    **options: Any,
) -> Iterator[Tensor]:
    """As :func:`search_or_sample`, one token ``(batch)`` at a time and without a search."""
    choice = chosen(model, begun, room, **{"beams": 1, **options})
    if choice.beams > 1 or choice.num > 1:
        raise ValueError("a stream is of one text a row: beams and num are for generate.")
    model = reader(model, choice, begun, room, draft, draft_tokens, generator)
    options = {**choice.shared, "prompt": prompt, "prompt_mask": prompt_mask}
    options |= {"sampling": choice.sampling, "generator": generator}
    if draft is None:
        return stream(model, inputs, **options)
    return speculative_stream(model, inputs, draft=draft, draft_tokens=draft_tokens, **options)
