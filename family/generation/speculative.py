"""Several tokens a step: a draft guesses, the model reads all guesses at once, and keeps as many as it would
have said itself (Leviathan et al. 2023; Chen et al. 2023). What comes has the model's own distribution."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from family.generation.generate import Decodes
from family.generation.rules import Rules
from family.generation.sampling import Sampling, restrict

PROMPT = "prompt"
"""The draft that copies: what followed the last tokens where they stood before (prompt lookup, Saxena 2023)."""
LONGEST = 3
"""Tokens that are looked for before; fewer where so many were not there."""


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Those by which a token is drawn, ``(batch, vocab)``; greedy has one alone."""
    if sampling.temperature == 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    return restrict(logits.float(), sampling).softmax(-1)


def draw(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """``(batch, vocab)``, not all zero, -> ``(batch)``."""
    return weights.multinomial(1, generator=generator).squeeze(1)


class Guesses:
    """The tokens of a small model of the same vocabulary.

    Args:
        model, inputs: the draft, and what its ``prefill`` reads.
        judged: logits ``(batch, vocab)`` and the tokens since the prompt -> the probabilities by which one
            is drawn.
    """

    def __init__(
        self,
        model: Decodes,
        inputs: tuple[Any, ...],
        capacity: int,
        spare: int,
        judged: Callable[[Tensor, Tensor], Tensor],
        generator: torch.Generator | None,
    ) -> None:
        self.model, self.judged, self.generator = model, judged, generator
        prefill: Any = model.prefill
        _, self.cache = prefill(*inputs, capacity=capacity, spare=spare)
        self.begin = self.cache.progress.length
        self.read = 0
        """How many of the new tokens it has read."""

    def __call__(self, chosen: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """So many further tokens ``(batch, count)``, and the probabilities that they were drawn by,
        ``(batch, count, vocab)``.

        Args:
            chosen: ``(batch, tokens)``, all since the prompt; those that it guessed before may be others.
        """
        self.cache.rewind(self.begin + self.read)
        found = []
        for _ in range(count):
            new = chosen[:, self.read :]
            logits = self.model.decode(new if new.shape[1] > 1 else new[:, 0], self.cache)
            self.read = chosen.shape[1]
            found.append(self.judged(logits[:, -1] if logits.dim() == 3 else logits, chosen))
            chosen = torch.cat([chosen, draw(found[-1], self.generator)[:, None]], dim=1)
        return chosen[:, -count:], torch.stack(found, dim=1)

    def keep(self, count: int) -> None:
        """So many new tokens are as it knows them."""
        self.read = min(self.read, count)


class Copies:
    """The tokens that followed before in the row itself.

    Args:
        prompt: ``(batch, tokens)``, -1 where none stands; maybe None.
    """

    def __init__(self, prompt: Tensor | None, vocab_size: int) -> None:
        self.prompt, self.vocab_size = prompt, vocab_size

    def __call__(self, chosen: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """As :meth:`Guesses.__call__`; fewer tokens where no row has so many, maybe none."""
        history = chosen if self.prompt is None else torch.cat([self.prompt, chosen], dim=1)
        rows = [followed(row.tolist(), count) for row in history]
        most = max(map(len, rows))
        # A row without guesses takes one that will hardly be accepted.
        full = [row + [history[i, -1].item()] * (most - len(row)) for i, row in enumerate(rows)]
        tokens = torch.tensor(full, dtype=torch.long, device=chosen.device).view(len(rows), most)
        return tokens, F.one_hot(tokens, self.vocab_size).float()

    def keep(self, count: int) -> None:
        pass


def followed(history: list[int], count: int) -> list[int]:
    """At most so many tokens that stood after the last earlier place of the last tokens of a row."""
    for length in range(min(LONGEST, len(history) - 1), 0, -1):
        last = history[-length:]
        if -1 in last:
            continue
        for start in range(len(history) - length - 1, -1, -1):
            if history[start : start + length] == last:
                return history[start + length : start + length + count]
    return []


def accept(
    tokens: Tensor,
    guessed: Tensor,
    own: Tensor,
    finished: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """What stands of guesses, and one token more: ``(batch, kept + 1)``.

    Rows go on together, so it is as many as the row keeps of which fewest stand. Of a row by itself each
    token has the distribution of the model: a guess stands with probability min(1, own / guessed), and what
    comes in its place is drawn from what the guess had too little of.

    Args:
        tokens: ``(batch, count)``; guessed: ``(batch, count, vocab)``, what they were drawn by.
        own: ``(batch, count + 1, vocab)``, the model's probabilities in their places and after them.
        finished: ``(batch)``, rows whose tokens do not matter any more.
    """
    count = tokens.shape[1]
    pick = tokens[..., None]
    ratio = own[:, :count].gather(2, pick) / guessed.gather(2, pick)
    chance = torch.rand(tokens.shape, device=tokens.device, generator=generator)
    stands = (chance < ratio[..., 0]) | finished[:, None]
    kept_by_row = stands.long().cumprod(1).sum(1)
    kept = int(kept_by_row.min())
    weights = own[:, kept]
    if kept < count:
        lacking = (weights - guessed[:, kept]).clamp(min=0)
        # Where nothing lacks but rounding, a guess could not have fallen.
        weights = torch.where(lacking.sum(-1, keepdim=True) > 0, lacking, weights)
    new = draw(weights, generator)
    if kept < count:
        new = torch.where(kept_by_row > kept, tokens[:, kept], new)
    return torch.cat([tokens[:, :kept], new[:, None]], dim=1)


def speculative_stream(
    model: Decodes,
    inputs: tuple[Any, ...],
    *,
    draft: Any,
    draft_tokens: int = 4,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
    pad_id: int = 0,
    sampling: Sampling = Sampling(),
    prompt: Tensor | None = None,
    prompt_mask: Tensor | None = None,
    generator: torch.Generator | None = None,
    hook: Any = None,
    no_repeat_ngram: int = 0,
    min_new_tokens: int = 0,
    ends: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """As :func:`~family.generation.generate.stream`, in fewer steps of the model.

    Args:
        draft: a model of the same vocabulary that reads the same inputs, or "prompt": what followed before.
        draft_tokens: guesses a step, at most.

    Raises:
        ValueError: a draft of another vocabulary; a model that cannot take back what it read.
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

    def judged(logits: Tensor, chosen: Tensor) -> Tensor:
        return probabilities(rules(logits, chosen) if rules else logits, sampling)

    with torch.inference_mode():
        prefill: Any = model.prefill
        logits, cache = prefill(*inputs, capacity=max_new_tokens, spare=draft_tokens)
        check_draft(model, draft, logits, cache)
        guess: Any
        if draft == PROMPT:
            guess = Copies(rules.prompt, logits.shape[-1])
        else:
            guess = Guesses(draft, inputs, max_new_tokens, draft_tokens, judged, generator)
        begin = cache.progress.length
        chosen = logits.new_zeros(len(logits), 0, dtype=torch.long)
        new = draw(judged(logits, chosen), generator)[:, None]
        finished = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
        stops = torch.tensor(list(stop_ids), dtype=torch.long, device=logits.device)
    while True:
        for token in new.unbind(1):
            with torch.inference_mode():
                finished = finished | torch.isin(token, stops)
                if len(stops) and bool(finished.all()):
                    return
                chosen = torch.cat([chosen, token[:, None]], dim=1)
                shown = token.masked_fill(finished, pad_id)
                if ends is not None:
                    finished = finished | ends(chosen)
            yield shown.clone()
            if ends is not None and bool(finished.all()):
                return
        left = max_new_tokens - chosen.shape[1]
        if left < 1:
            return
        with torch.inference_mode():
            count = min(draft_tokens, left - 1)
            last = chosen[:, -1:]
            tokens, guessed = guess(chosen, count) if count else (last[:, :0], last)
            if not tokens.shape[1]:
                new = draw(judged(model.decode(last[:, 0], cache), chosen), generator)[:, None]
                continue
            read = model.decode(torch.cat([last, tokens], dim=1), cache)
            places = range(tokens.shape[1] + 1)
            seen = [torch.cat([chosen, tokens[:, :i]], dim=1) for i in places]
            own = torch.stack([judged(read[:, i], seen[i]) for i in places], dim=1)
            new = accept(tokens, guessed, own, finished, generator)
            kept = chosen.shape[1] + new.shape[1] - 1  # the last one was not read
            cache.rewind(begin + kept)
            guess.keep(kept)


def check_draft(model: Any, draft: Any, logits: Tensor, cache: Any) -> None:
    """Refuse, in one sentence, what cannot be guessed for."""
    if not hasattr(cache, "rewind") or getattr(cache, "ids", None) is not None:
        raise ValueError(
            f"a draft needs a model that can take back what it read, and this {type(model).__name__} cannot."
        )
    if draft == PROMPT:
        return
    if isinstance(draft, str):
        raise ValueError(f'draft={draft!r} must be a model, or "prompt".')
    size = getattr(draft, "vocab_size", None)
    if size != logits.shape[-1]:
        raise ValueError(
            f"the draft has a vocabulary of {size}, and the model one of {logits.shape[-1]}: they must be "
            "the same."
        )
