"""Classifier-free guidance (Ho & Salimans 2022): what a prompt changes is overstated."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def check_guidance(guidance: float) -> None:
    """Refuse what no picture can be guided by.

    Raises:
        ValueError: below 0, or no number.
    """
    if not 0 <= guidance < math.inf:
        raise ValueError(f"guidance must be a number of at least 0, not {guidance}.")


def guides(guidance: float | None, dropout: float) -> bool:
    """Whether a guidance changes anything: None and 1 leave all as it is.

    Args:
        dropout: the share of prompts that the model was trained without.

    Raises:
        ValueError: guidance of a model that never saw a picture without prompt.
    """
    if guidance is None or guidance == 1:
        return False
    if not dropout:
        raise ValueError(
            f"guidance={guidance} needs a model that was trained with some captions left out, "
            "but this one has caption_dropout=0."
        )
    return True


def with_and_without(input_ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Prompts ``(batch, tokens)`` and their mask, and behind them the same rows without any token."""
    if mask is None:
        mask = torch.ones_like(input_ids, dtype=torch.bool)
    return torch.cat([input_ids, input_ids]), torch.cat([mask, torch.zeros_like(mask)])


def overstated(both: Tensor, guidance: float) -> Tensor:
    """``without + guidance * (with - without)`` of ``(2 * batch, ...)``, first those with the prompt."""
    told, untold = both.chunk(2)
    return untold + guidance * (told - untold)


class Guided:
    """Decodes as a model does, but that its logits are ``without + guidance * (with - without)``, of the
    tokens that follow a prompt and of those that follow none. Both are rows of one batch.

    Args:
        model: as :class:`~family.generation.generate.Decodes` says; a row of its prompts whose mask has no
            token is no prompt.
        guidance: 1 leaves logits as they are, 0 is without the prompt, more overstates it.

    Raises:
        ValueError: see :func:`check_guidance`.
    """

    def __init__(self, model: Any, guidance: float) -> None:
        check_guidance(guidance)
        self.model, self.guidance = model, guidance

    def prefill(
        self, input_ids: Tensor, mask: Tensor | None = None, *, capacity: int
    ) -> tuple[Tensor, Any]:
        """Read prompts ``(batch, tokens)``: logits ``(batch, vocab)``, and a cache of twice as many rows."""
        both = with_and_without(input_ids, mask)
        logits, cache = self.model.prefill(*both, capacity=capacity)
        return self.guided(logits), cache

    def decode(self, tokens: Tensor, cache: Any) -> Tensor:
        """One more token a row ``(batch)`` -> logits ``(batch, vocab)`` of the next."""
        return self.guided(self.model.decode(torch.cat([tokens, tokens]), cache))

    def guided(self, logits: Tensor) -> Tensor:
        """``(2 * batch, vocab)``, first those with the prompt -> ``(batch, vocab)``."""
        working = torch.promote_types(logits.dtype, torch.float32)
        return overstated(logits.to(working), self.guidance)
