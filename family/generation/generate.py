"""Token after token, greedy or sampled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from family.generation.hooks import LogitsHook
from family.generation.rules import Rules
from family.generation.sampling import Sampling, pick


class Branches(Protocol):
    """What a cache offers to beam search; :class:`family.core.cache.Cache` says what it means."""

    def branch(self, count: int) -> None: ...

    def reorder(self, parents: Tensor) -> None: ...


class Decodes(Protocol):
    """What a member offers to be generated from."""

    @property
    def prefill(self) -> Callable[..., tuple[Tensor, Branches]]:
        """``prefill(*inputs, capacity, branches=1)``: logits ``(batch, vocab)`` of the next token, and
        a cache with room for so many more in each of so many branches."""

    def decode(self, tokens: Tensor, cache: Any) -> Tensor:
        """Read one token a row ``(batch)``, or a branch ``(batch, branches)``: logits ``(..., vocab)``
        of the next."""


def stream(
    model: Decodes,
    inputs: tuple[Any, ...],
    *,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
    pad_id: int = 0,
    sampling: Sampling = Sampling(),
    prompt: Tensor | None = None,
    prompt_mask: Tensor | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    hook: LogitsHook | None = None,
    no_repeat_ngram: int = 0,
    min_new_tokens: int = 0,
    ends: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Yield ``(batch)`` tokens as soon as they are known, until every row has stopped.

    Args:
        inputs: what ``model.prefill`` reads.
        stop_ids: a row ends with any of these; it yields ``pad_id`` from there on.
        sampling: how each token is drawn; greedy unless said otherwise.
        prompt: ``(batch, tokens)`` that repetitions are counted from, with its mask.
        generator: of the random numbers of sampling, on the device of the model; one for each row draws
            what the row would draw by itself.
        hook: changes logits before a token is drawn, after the rules that are named here.
        no_repeat_ngram: no so many tokens in a row come twice; 0 is no limit.
        min_new_tokens: no token of ``stop_ids`` comes before so many others.
        ends: the new tokens so far ``(batch, tokens)`` -> ``(batch)``, True where the last of them ends
            the text, and belongs to it.
    """
    if max_new_tokens < 1:
        return
    rules = Rules(
        sampling.repetition_penalty,
        no_repeat_ngram,
        min_new_tokens,
        stop_ids,
        prompt,
        prompt_mask,
        hook,
    )
    ruled = bool(rules)
    remembers = ruled or ends is not None
    with torch.inference_mode():
        logits, cache = model.prefill(*inputs, capacity=max_new_tokens)
        tokens, rows, device = logits.argmax(-1), len(logits), logits.device
        finished = torch.zeros(rows, dtype=torch.bool, device=device)
        stops = torch.tensor(list(stop_ids), dtype=torch.long, device=device)
        chosen = torch.empty(rows, 0, dtype=torch.long, device=device)
    for step in range(max_new_tokens):
        # Entered anew at each step: the caller's own code must not run in inference mode.
        with torch.inference_mode():
            if step:
                logits = model.decode(tokens, cache)
            if ruled:
                logits = rules(logits, chosen)
            tokens = pick(logits, sampling, generator=generator)
            if len(stops):
                finished = finished | torch.isin(tokens, stops)
            if len(stops) and bool(finished.all()):
                return
            ending = len(stops) or ends is not None
            shown = tokens.masked_fill(finished, pad_id) if ending else tokens
            if remembers:
                chosen = torch.cat([chosen, tokens[:, None]], dim=1)
            if ends is not None:
                finished = finished | ends(chosen)
        yield shown.clone()  # outside of inference mode: it may be trained on
        if ends is not None and bool(finished.all()):
            return


def generate(model: Decodes, inputs: tuple[Any, ...], **options: Any) -> Tensor:
    """All that :func:`stream` yields, ``(batch, new tokens)``: without the stop tokens, and padded after
    them where other rows go on."""
    return together(stream(model, inputs, **options), inputs)


def together(written: Iterator[Tensor], inputs: tuple[Any, ...]) -> Tensor:
    """All that a stream yields, ``(batch, new tokens)``, of such inputs."""
    tokens = list(written)
    if not tokens:
        like = next(i for i in inputs if isinstance(i, Tensor))
        return torch.zeros(len(like), 0, dtype=torch.long, device=like.device)
    return torch.stack(tokens, dim=1)
