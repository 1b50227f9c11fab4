"""Learning from one's own answers: advantages, the clipped objectives of PPO and GRPO, and how far a policy
has gone from its reference.

All tables are ``(answers, tokens)``; ``mask`` is True where a token belongs to its answer, which begins at
the first column. Numbers are computed in float32 at least.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from family.losses.log_probs import full
from family.losses.processes import over_processes

EPSILON = 1e-4
"""Added to a group's standard deviation, as TRL does."""
AGGREGATIONS = ("sequence", "constant")


# --- Advantages ---


def group_advantages(rewards: Tensor, group_size: int, scaled: bool = True) -> Tensor:
    """How much better each answer is than the mean of its group, the answers to one prompt.

    Args:
        rewards: ``(answers,)``, those of a group one after another.
        scaled: in standard deviations of the group (GRPO: Shao et al. 2024, section 4.1.2), else as they
            are, so that a group's difficulty does not change its weight (Dr. GRPO: Liu et al. 2025).

    Returns:
        ``(answers,)``, zeros for a group without a difference.
    """
    groups = full(rewards).view(-1, group_size)
    centred = groups - groups.mean(1, keepdim=True)
    if scaled:
        centred = centred / (groups.std(1, keepdim=True) + EPSILON)
    return centred.flatten()


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, equation 16): the sum of
    ``(gamma lam)^l delta_{t+l}``, with ``delta_t = r_t + gamma V_{t+1} - V_t``; nothing follows the last
    token of an answer.

    Args:
        rewards: of each token.
        values: before each token.

    Returns:
        ``(answers, tokens)``, 0 outside of the mask; with ``values`` added they are the returns.
    """
    rewards, values = (full(x).masked_fill(~mask, 0.0) for x in (rewards, values))
    following, found, columns = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0]), []
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * following - values[:, t]
        found, following = delta + gamma * lam * found, values[:, t]
        columns.append(found)
    return torch.stack(columns[::-1], dim=1).masked_fill(~mask, 0.0)


def whitened(x: Tensor, mask: Tensor) -> Tensor:
    """With mean 0 and variance 1 over the tokens of all answers, of all processes together."""
    x = full(x)
    sums = over_processes(torch.stack([x[mask].sum(), mask.sum().to(x.dtype)]))
    centred = (x - sums[0] / sums[1]).masked_fill(~mask, 0.0)
    variance = over_processes(centred.square().sum()) / sums[1]
    return centred * (variance + 1e-8).rsqrt()


# --- Objectives ---


class Clipped(NamedTuple):
    """Of each token the loss and the ratio of its probabilities, and the share of tokens that are
    clipped."""

    loss: Tensor
    ratio: Tensor
    share: Tensor


def clipped_policy_loss(
    log_probs: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> Clipped:
    """``-min(ratio A, clamp(ratio, 1 - clip, 1 + clip_high) A)`` (PPO: Schulman et al. 2017, equation 7).

    Args:
        log_probs: of the policy that learns.
        old: of the policy that wrote the answers.
        advantages: ``(answers, tokens)``, or ``(answers, 1)``.
        clip_high: None is ``clip``; more of it lets unlikely tokens grow (DAPO: Yu et al. 2025).
    """
    high = clip if clip_high is None else clip_high
    change = (full(log_probs) - full(old)).masked_fill(~mask, 0.0)
    ratio, advantages = change.exp(), full(advantages)
    loss = -torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + high) * advantages)
    beyond = ((ratio < 1 - clip) & (advantages < 0)) | ((ratio > 1 + high) & (advantages > 0))
    share = (beyond & mask).sum() / mask.sum().clamp(min=1)
    return Clipped(loss.masked_fill(~mask, 0.0), ratio.detach(), share)


def clipped_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float = 0.2
) -> Tensor:
    """Half the squared error of each token, the larger of that of the values and of values that stay near
    the old ones, as PPO's own code has it (openai/baselines, ``ppo2``)."""
    values, old_values, returns = full(values), full(old_values), full(returns)
    near = old_values + (values - old_values).clamp(-clip, clip)
    worse = torch.max((values - returns).square(), (near - returns).square())
    return (0.5 * worse).masked_fill(~mask, 0.0)


class KL(NamedTuple):
    """Estimators of the divergence from the reference, of each token (Schulman 2020, "Approximating KL
    divergence")."""

    k1: Tensor
    """``log p/q``: unbiased, of either sign."""
    k3: Tensor
    """``q/p - 1 - log q/p``: unbiased, and never negative."""


def kl_estimates(log_probs: Tensor, reference: Tensor) -> KL:
    """Of tokens that the policy ``p`` drew, by its log-probabilities and those of the reference ``q``."""
    change = full(reference) - full(log_probs)
    return KL(-change, change.exp() - 1 - change)


def aggregate(
    losses: Tensor, mask: Tensor, how: str = "sequence", max_new_tokens: int | None = None
) -> Tensor:
    """One number of what each token costs.

    Either way it is a mean over answers, so that the mean of equal parts is that of the whole.

    Args:
        how: "sequence", the mean of each answer's mean (GRPO, equation 3), or "constant", the sum over
            tokens, divided by answers times ``max_new_tokens``: no answer's length changes what a token
            counts (Dr. GRPO).
        max_new_tokens: that an answer could have; asked for by "constant".

    Raises:
        ValueError: another way.
    """
    if how not in AGGREGATIONS:
        raise ValueError(f"aggregation {how!r} is unknown; choose {' or '.join(AGGREGATIONS)}.")
    sums = full(losses).masked_fill(~mask, 0.0).sum(1)
    if how == "sequence":
        return (sums / mask.sum(1).clamp(min=1)).mean()
    assert max_new_tokens is not None
    return sums.mean() / max_new_tokens
