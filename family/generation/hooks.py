"""What may change logits before a token is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

LogitsHook = Callable[[Tensor, Tensor], Tensor]
"""Logits ``(..., vocab)`` and the new tokens so far ``(..., tokens)``, of rows or of their branches, to
the logits that count; log-probabilities in a search."""


@dataclass(frozen=True)
class TokenRules:
    """Tokens that must come, and tokens that must not, by their place among the new ones.

    Args:
        forced: place, from 0 -> the token that stands there (BART's first, NLLB's language).
        suppressed: tokens that never come (Whisper).
        suppressed_first: tokens that do not come first (Whisper's blank).
    """

    forced: Mapping[int, int] = field(default_factory=dict)
    suppressed: Sequence[int] = ()
    suppressed_first: Sequence[int] = ()

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """``(..., vocab)`` with -inf where a token is ruled out."""
        place = tokens.shape[-1]
        if place in self.forced:
            logits = torch.full_like(logits, -math.inf)
            logits[..., self.forced[place]] = 0.0  # a certain token costs a beam nothing
            return logits
        banned = [*self.suppressed, *(self.suppressed_first if place == 0 else ())]
        if banned:
            logits = logits.index_fill(-1, torch.tensor(banned, device=logits.device), -math.inf)
        return logits


@dataclass(frozen=True)
class FirstTokens:
    """The token that each row's text must begin with: the language that it is to be in.

    Args:
        ids: ``(rows,)``.
    """

    ids: Tensor

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """``(rows, ..., vocab)``, at the first place with all but a row's own token ruled out."""
        if tokens.shape[-1]:
            return logits
        ids = self.ids.repeat_interleave(len(logits) // len(self.ids))  # several texts of a row
        ids = ids.view(-1, *(1 for _ in logits.shape[1:])).expand(*logits.shape[:-1], 1)
        # A certain token costs a beam nothing.
        return torch.full_like(logits, -math.inf).scatter(-1, ids, 0.0)
