"""Classifier-free guidance of what decodes token by token (Ho & Salimans 2022)."""

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
        if mask is None:
            mask = torch.ones_like(input_ids, dtype=torch.bool)
        both = torch.cat([input_ids, input_ids]), torch.cat([mask, torch.zeros_like(mask)])
        logits, cache = self.model.prefill(*both, capacity=capacity)
        return self.guided(logits), cache

    def decode(self, tokens: Tensor, cache: Any) -> Tensor:
        """One more token a row ``(batch)`` -> logits ``(batch, vocab)`` of the next."""
        return self.guided(self.model.decode(torch.cat([tokens, tokens]), cache))

    def guided(self, logits: Tensor) -> Tensor:
        """``(2 * batch, vocab)``, first those with the prompt -> ``(batch, vocab)``."""
        told, untold = logits.to(torch.promote_types(logits.dtype, torch.float32)).chunk(2)
        return untold + self.guidance * (told - untold)
