"""Drawing by given numbers: a text is then the same alone, in any batch, and in any process."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class InverseSampling:
    """A logits hook that draws each token from ``softmax(logits / temperature)`` by the inverse of its
    distribution function, at a given uniform number, and records it with its log-probability.

    It leaves no other token possible, so that a greedy search takes what was drawn. It must be the only
    thing that changes logits: what others rule out would be missing in the log-probabilities.

    Args:
        numbers: ``(rows, steps)``, uniform in [0, 1), float64; None takes the likeliest tokens.
        temperature: above 0.
    """

    def __init__(self, numbers: Tensor | None, temperature: float = 1.0) -> None:
        self.numbers, self.temperature = numbers, temperature
        self.drawn: list[Tensor] = []
        self.found: list[Tensor] = []

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """``(rows, vocab)`` and the new tokens ``(rows, steps)`` to logits with one token alone."""
        if self.numbers is None:
            chosen = logits.argmax(-1)
        else:
            chosen = draw(logits, self.numbers[:, tokens.shape[-1]], self.temperature)
        self.drawn.append(chosen)
        self.found.append(log_probs_of(logits, chosen, self.temperature))
        alone = torch.full_like(logits, -math.inf)
        return alone.scatter_(-1, chosen[:, None], 0.0)

    @property
    def tokens(self) -> Tensor:
        """``(rows, steps)``, those that end a text among them; behind such a one they mean nothing."""
        return torch.stack(self.drawn, dim=1)

    @property
    def log_probs(self) -> Tensor:
        """Of :attr:`tokens`, in float32 at least."""
        return torch.stack(self.found, dim=1)


def draw(logits: Tensor, numbers: Tensor, temperature: float = 1.0) -> Tensor:
    """The first token of each row at which the sum of probabilities exceeds the row's number.

    Args:
        logits: ``(rows, vocab)``.
        numbers: ``(rows,)`` in [0, 1).
    """
    # MPS has no float64; its sums of float32 are as good as its logits.
    working = torch.float32 if logits.device.type == "mps" else torch.float64
    sums = (logits.to(working) / temperature).softmax(-1).cumsum(-1)
    most = 1 - 2 * torch.finfo(working).eps  # or rounding might lead beyond the last token
    wanted = numbers.to(sums).clamp(max=most)[:, None] * sums[:, -1:]
    return torch.searchsorted(sums, wanted, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)


def log_probs_of(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Of one token a row, in float32 at least, step by step as
    :func:`family.losses.log_probs.token_log_probs` computes them.

    Args:
        logits: ``(rows, vocab)``; tokens: ``(rows,)``.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    return logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.logsumexp(-1)
