"""From logits to one token a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-30
"""What is below it would be zero in float32."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn; the default is greedy.

    Filters apply in the order of the fields, as in transformers: the penalty, the temperature,
    then each cut-off on what the one before it left.
    """

    repetition_penalty: float = 1.0
    """Divides positive logits of tokens seen before, multiplies negative ones (Keskar et al. 2019)."""
    temperature: float = 0.0
    """0 is greedy."""
    top_k: int = 0
    """Keep the k most likely; 0 keeps all."""
    top_p: float = 1.0
    """Keep the fewest tokens whose probabilities add up to p (Holtzman et al. 2020)."""
    min_p: float = 0.0
    """Keep tokens at least this fraction as likely as the likeliest (Nguyen et al. 2024)."""

    def __post_init__(self) -> None:
        if self.repetition_penalty <= 0:
            raise ValueError(f"repetition_penalty must be over 0, not {self.repetition_penalty}.")
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, not {self.temperature}.")
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 0, not {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}.")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in [0, 1], not {self.min_p}.")


def penalise(logits: Tensor, history: Tensor, penalty: float) -> Tensor:
    """Make tokens of ``history (batch, tokens)`` less likely; negative ids are padding."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    # One column more takes the padding.
    seen = torch.cat([seen, seen[:, :1]], dim=1).scatter_(1, history % (logits.shape[1] + 1), True)
    penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen[:, :-1], penalised, logits)


def restrict(logits: Tensor, sampling: Sampling) -> Tensor:
    """Temperature and cut-offs: ``(batch, vocab)`` logits with -inf where a token is ruled out."""
    logits = logits / max(sampling.temperature, TINY)
    if 0 < sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        cut = torch.zeros_like(order, dtype=torch.bool).scatter(
            1, order, before >= max(sampling.top_p, TINY)
        )
        logits = logits.masked_fill(cut, -math.inf)
    if sampling.min_p:
        probabilities = logits.softmax(-1)
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        logits = logits.masked_fill(probabilities < least, -math.inf)
    return logits


def pick(
    logits: Tensor,
    sampling: Sampling,
    history: Tensor | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> Tensor:
    """One token a row, ``(batch)``.

    Args:
        logits: ``(batch, vocab)``.
        history: ``(batch, tokens)`` seen so far, for the repetition penalty; -1 is padding.
        generator: of the random numbers; one for each row draws what the row would draw by itself.
    """
    if sampling.repetition_penalty != 1 and history is not None:
        logits = penalise(logits, history, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = restrict(logits.float(), sampling).softmax(-1)
    if isinstance(generator, Sequence):
        rows = zip(probabilities, generator, strict=True)
        return torch.cat([row.multinomial(1, generator=own) for row, own in rows])
    return probabilities.multinomial(1, generator=generator).squeeze(1)
