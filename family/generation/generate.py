"""Token after token, greedy or sampled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from family.generation.hooks import LogitsHook
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
    generator: torch.Generator | None = None,
    hook: LogitsHook | None = None,
) -> Iterator[Tensor]:
    """Yield ``(batch)`` tokens as soon as they are known, until every row has stopped.

    Args:
        inputs: what ``model.prefill`` reads.
        stop_ids: a row ends with any of these; it yields ``pad_id`` from there on.
        sampling: how each token is drawn; greedy unless said otherwise.
        prompt: ``(batch, tokens)`` that the repetition penalty counts too, with its mask.
        generator: of the random numbers of sampling, on the device of the model.
        hook: changes logits before anything else is made of them.
    """
    if max_new_tokens < 1:
        return
    penalised = sampling.repetition_penalty != 1
    history = None
    with torch.inference_mode():
        logits, cache = model.prefill(*inputs, capacity=max_new_tokens)
        tokens, rows, device = logits.argmax(-1), len(logits), logits.device
        finished = torch.zeros(rows, dtype=torch.bool, device=device)
        stops = torch.tensor(list(stop_ids), dtype=torch.long, device=device)
        chosen = torch.empty(rows, 0, dtype=torch.long, device=device)
        if penalised:
            history = torch.empty(rows, 0, dtype=torch.long, device=device)
            if prompt is not None:
                history = prompt if prompt_mask is None else prompt.masked_fill(~prompt_mask, -1)
    for step in range(max_new_tokens):
        # Entered anew at each step: the caller's own code must not run in inference mode.
        with torch.inference_mode():
            if step:
                logits = model.decode(tokens, cache)
            if hook is not None:
                logits = hook(logits, chosen)
            tokens = pick(logits, sampling, history, generator)
            if len(stops):
                finished = finished | torch.isin(tokens, stops)
                shown = tokens.masked_fill(finished, pad_id)
            else:
                shown = tokens
            if history is not None:
                history = torch.cat([history, tokens[:, None]], dim=1)
            if hook is not None:
                chosen = torch.cat([chosen, tokens[:, None]], dim=1)
        if len(stops) and bool(finished.all()):
            return
        yield shown


def generate(model: Decodes, inputs: tuple[Any, ...], **options: Any) -> Tensor:
    """All that :func:`stream` yields, ``(batch, new tokens)``: without the stop tokens, and padded after
    them where other rows go on."""
    tokens = list(stream(model, inputs, **options))
    if not tokens:
        like = next(i for i in inputs if isinstance(i, Tensor))
        return torch.zeros(len(like), 0, dtype=torch.long, device=like.device)
    return torch.stack(tokens, dim=1)
