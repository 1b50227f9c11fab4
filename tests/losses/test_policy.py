"""Advantages, clipped objectives and divergences against their formulas, computed token by token."""

from __future__ import annotations

import math

import pytest
import torch

from family.losses.policy import (
    aggregate,
    clipped_policy_loss,
    clipped_value_loss,
    generalised_advantages,
    group_advantages,
    kl_estimates,
    whitened,
)

ROWS, STEPS = 5, 6


@pytest.fixture
def tables():
    """Random numbers in float64, and answers of unequal lengths."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([6, 1, 3, 5, 2])
    mask = torch.arange(STEPS) < lengths[:, None]
    return mask, lambda: torch.randn(ROWS, STEPS, generator=generator, dtype=torch.float64)


def tokens(mask):
    return [(i, t) for i in range(ROWS) for t in range(STEPS) if mask[i, t]]


def test_group_advantages_by_hand():
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 3.0, 3.0, 3.0, 3.0], dtype=torch.float64)
    std = math.sqrt(1 / 3)
    expected = [0.5, -0.5, -0.5, 0.5]
    scaled = group_advantages(rewards, 4)
    assert scaled.tolist() == pytest.approx([x / (std + 1e-4) for x in expected] + [0] * 4)
    assert group_advantages(rewards, 4, scaled=False).tolist() == pytest.approx(expected + [0] * 4)
    assert group_advantages(rewards.half(), 4).dtype == torch.float32


def test_generalised_advantages_are_the_sum_of_later_errors(tables):
    mask, draw = tables
    rewards, values, gamma, lam = draw(), draw(), 0.9, 0.7
    found = generalised_advantages(rewards, values, mask, gamma, lam)
    for i in range(ROWS):
        n = int(mask[i].sum())
        deltas = [
            rewards[i, t] + (gamma * values[i, t + 1] if t + 1 < n else 0) - values[i, t]
            for t in range(n)
        ]
        for t in range(STEPS):
            wanted = sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, n))
            assert float(found[i, t]) == pytest.approx(float(wanted), abs=1e-12)
    # lam = gamma = 1: what is still to come, less the value.
    plain = generalised_advantages(rewards, values, mask, 1.0, 1.0)
    assert float(plain[0, 2]) == pytest.approx(float(rewards[0, 2:].sum() - values[0, 2]))


@pytest.mark.parametrize("clip_high", [None, 0.28])
def test_the_clipped_objective_and_its_gradient(tables, clip_high):
    mask, draw = tables
    log_probs, old, advantages = draw().requires_grad_(), draw(), draw()
    found = clipped_policy_loss(log_probs, old, advantages, mask, 0.2, clip_high)
    found.loss.sum().backward()
    high, beyond = 0.2 if clip_high is None else clip_high, 0
    gradient = torch.zeros_like(old)
    for i, t in tokens(mask):
        ratio = math.exp(float((log_probs[i, t] - old[i, t]).detach()))
        advantage = float(advantages[i, t])
        cut = min(max(ratio, 1 - 0.2), 1 + high)
        assert float(found.loss[i, t].detach()) == pytest.approx(
            -min(ratio * advantage, cut * advantage), rel=1e-12
        )
        clipped = ratio > 1 + high if advantage > 0 else ratio < 0.8
        beyond += clipped
        gradient[i, t] = 0 if clipped else -ratio * advantage
    torch.testing.assert_close(log_probs.grad, gradient, rtol=1e-10, atol=1e-12)
    assert float(found.share) == pytest.approx(beyond / int(mask.sum())) and beyond > 0


def test_clipping_by_hand():
    old = torch.zeros(1, 4, dtype=torch.float64)
    ratio = torch.tensor([[1.5, 1.5, 0.5, 0.5]], dtype=torch.float64)
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]], dtype=torch.float64)
    found = clipped_policy_loss(ratio.log(), old, advantages, torch.ones(1, 4, dtype=torch.bool))
    assert found.loss[0].tolist() == pytest.approx([-1.2, 1.5, -0.5, 0.8])
    assert float(found.share) == 0.5


def test_what_is_masked_counts_nowhere(tables):
    mask, draw = tables
    log_probs, old, advantages = draw(), draw(), draw()
    log_probs[~mask], old[~mask] = 500.0, -500.0  # whose ratio is infinite
    log_probs.requires_grad_()
    found = clipped_policy_loss(log_probs, old, advantages, mask)
    loss = aggregate(found.loss, mask)
    kl = aggregate(kl_estimates(log_probs, old).k3, mask)
    (loss + kl).backward()
    assert torch.isfinite(log_probs.grad).all() and not log_probs.grad[~mask].any()


def test_the_value_loss_and_its_gradient(tables):
    mask, draw = tables
    values, old, returns = draw().requires_grad_(), draw(), draw()
    found = clipped_value_loss(values, old, returns, mask, 0.5)
    found.sum().backward()
    gradient = torch.zeros_like(old)
    for i, t in tokens(mask):
        value, before, wanted = (float(x[i, t].detach()) for x in (values, old, returns))
        near = before + min(max(value - before, -0.5), 0.5)
        worse = max((value - wanted) ** 2, (near - wanted) ** 2)
        assert float(found[i, t].detach()) == pytest.approx(worse / 2)
        far = (near - wanted) ** 2 > (value - wanted) ** 2
        gradient[i, t] = 0 if far else value - wanted
    torch.testing.assert_close(values.grad, gradient)


def test_estimates_of_the_divergence_have_its_mean():
    logits, others = torch.tensor([[0.0, 1.0, 2.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    p, q = logits.log_softmax(0), others.log_softmax(0)
    exact = float((p.exp() * (p - q)).sum())
    found = kl_estimates(p, q)
    assert float((p.exp() * found.k1).sum()) == pytest.approx(exact)
    assert float((p.exp() * found.k3).sum()) == pytest.approx(exact)
    assert (found.k3 >= 0).all() and (found.k1 < 0).any()
    ratio = (q - p).exp()
    torch.testing.assert_close(found.k3, ratio - 1 - ratio.log())


def test_the_mean_of_equal_parts_is_that_of_the_whole(tables):
    mask, draw = tables
    losses = draw()
    means = [float(losses[i][mask[i]].mean()) for i in range(ROWS)]
    assert float(aggregate(losses, mask)) == pytest.approx(sum(means) / ROWS)
    constant = float(losses[mask].sum()) / (ROWS * 9)
    assert float(aggregate(losses, mask, "constant", 9)) == pytest.approx(constant)
    with pytest.raises(ValueError, match="'token' is unknown; choose sequence or constant"):
        aggregate(losses, mask, "token")


def test_whitened_numbers_have_mean_0_and_variance_1(tables):
    mask, draw = tables
    x = draw() * 3 + 2
    found = whitened(x, mask)
    assert float(found[mask].mean()) == pytest.approx(0, abs=1e-9)
    assert float(found[mask].var(unbiased=False)) == pytest.approx(1, abs=1e-6)
    assert not found[~mask].any()
