"""Which of two answers is better: losses of rewards, and of language models that are tuned on pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from family.losses.language_model import IGNORE
from family.losses.log_probs import full, token_log_probs


class Preference(NamedTuple):
    """Of each pair ``(pairs)``, in float32 at least."""

    loss: Tensor
    chosen: Tensor
    """The reward that a language model implies for the better answer; without a gradient."""
    rejected: Tensor
    """That for the worse one."""


def answer_log_probs(logits: Tensor, labels: Tensor, mean: bool = False) -> Tensor:
    """Log-probabilities of whole answers ``(batch)``, the sum over their tokens.

    Args:
        logits: ``(batch, tokens, vocab)``.
        labels: ``(batch, tokens)``, the token that follows each position, ``IGNORE`` but in the answer.
        mean: over the tokens, in place of the sum.
    """
    total = token_log_probs(logits, labels).sum(-1)
    return total / (labels != IGNORE).sum(-1).clamp(min=1) if mean else total


def bradley_terry(chosen: Tensor, rejected: Tensor, margins: Tensor | None = None) -> Tensor:
    """``-log sigmoid(r_chosen - r_rejected - margin)`` of each pair (Bradley & Terry 1952; Ouyang et al. 2022,
    equation 1; margins: Touvron et al. 2023, Llama 2, equation 2).

    Args:
        chosen, rejected: rewards ``(pairs)``.
        margins: ``(pairs)``, by how much the better one should be ahead.
    """
    ahead = full(chosen) - full(rejected)
    return -F.logsigmoid(ahead if margins is None else ahead - margins)


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Preference:
    """``-log sigmoid(r_chosen - r_rejected)``, where ``r = beta (log p - log p_ref)`` (Rafailov et al. 2023,
    equation 7).

    Args:
        chosen, rejected: log-probabilities of the answers ``(pairs)``.
        reference_chosen, reference_rejected: those of the model that it is to stay near.
        label_smoothing: how often a pair is taken to be the wrong way round, below 0.5 (conservative DPO:
            Mitchell 2023, "A note on DPO with noisy preferences").
    """
    better = beta * (full(chosen) - full(reference_chosen))
    worse = beta * (full(rejected) - full(reference_rejected))
    loss = smoothed(better - worse, label_smoothing)
    return Preference(loss, better.detach(), worse.detach())


def ipo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float = 0.1,
) -> Preference:
    """``(h - 1 / (2 beta))^2``, ``h`` the difference of ``log p - log p_ref`` (Azar et al. 2023, equation 17,
    whose tau is beta): unlike DPO's, the gap has an end, also where a pair is never the other way round.

    Args:
        chosen, rejected, reference_chosen, reference_rejected: as in :func:`dpo_loss`; means over the
            tokens, if pairs of unequal lengths are to have one scale.
    """
    better = full(chosen) - full(reference_chosen)
    worse = full(rejected) - full(reference_rejected)
    loss = (better - worse - 1 / (2 * beta)) ** 2
    return Preference(loss, beta * better.detach(), beta * worse.detach())


def simpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    beta: float = 2.0,
    gamma: float = 1.0,
    label_smoothing: float = 0.0,
) -> Preference:
    """``-log sigmoid(r_chosen - r_rejected - gamma)``, where ``r = beta log p / tokens`` (Meng et al. 2024,
    equation 6): without a reference.

    Args:
        chosen, rejected: mean log-probabilities of the answers' tokens ``(pairs)``.
        gamma: by how much the better one's reward should be ahead.
        label_smoothing: as in :func:`dpo_loss`.
    """
    better, worse = beta * full(chosen), beta * full(rejected)
    loss = smoothed(better - worse - gamma, label_smoothing)
    return Preference(loss, better.detach(), worse.detach())


def smoothed(ahead: Tensor, smoothing: float) -> Tensor:
    """The loss of being so far ahead, where so many pairs may be the wrong way round."""
    loss = -F.logsigmoid(ahead)
    if not smoothing:
        return loss
    return (1 - smoothing) * loss - smoothing * F.logsigmoid(-ahead)
