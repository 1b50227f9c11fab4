"""Losses of pairs and their gradients against the formulas, written out here for single numbers in float64."""

from __future__ import annotations

import math

import pytest
import torch

from family.losses.language_model import IGNORE
from family.losses.preferences import (
    answer_log_probs,
    bradley_terry,
    dpo_loss,
    ipo_loss,
    simpo_loss,
)

COUNT, BETA, SMOOTHING, GAMMA = 7, 0.3, 0.2, 0.7


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def drawn(*, dtype=torch.float64):
    """Log-probabilities of better and worse answers, and of the reference's."""
    torch.manual_seed(0)
    sides = [-5 * torch.rand(COUNT, dtype=torch.float64) for _ in range(4)]
    return [side.to(dtype).requires_grad_(i < 2) for i, side in enumerate(sides)]


def dpo(c, r, rc, rr, smoothing=0.0):
    """Loss, its slope along ``c`` (that along ``r`` is the opposite), and both rewards."""
    better, worse = BETA * (c - rc), BETA * (r - rr)
    up, down = sigmoid(better - worse), sigmoid(worse - better)
    loss = -(1 - smoothing) * math.log(up) - smoothing * math.log(down)
    slope = BETA * (smoothing * up - (1 - smoothing) * down)
    return loss, slope, better, worse


def ipo(c, r, rc, rr):
    gap = (c - rc) - (r - rr) - 1 / (2 * BETA)
    return gap**2, 2 * gap, BETA * (c - rc), BETA * (r - rr)


def simpo(c, r, smoothing=0.0):
    ahead = BETA * c - BETA * r - GAMMA
    loss = -(1 - smoothing) * math.log(sigmoid(ahead)) - smoothing * math.log(sigmoid(-ahead))
    slope = BETA * (smoothing * sigmoid(ahead) - (1 - smoothing) * sigmoid(-ahead))
    return loss, slope, BETA * c, BETA * r


CASES = {
    "dpo": (4, lambda *x: dpo_loss(*x, beta=BETA), dpo),
    "conservative dpo": (
        4,
        lambda *x: dpo_loss(*x, beta=BETA, label_smoothing=SMOOTHING),
        lambda *x: dpo(*x, smoothing=SMOOTHING),
    ),
    "ipo": (4, lambda *x: ipo_loss(*x, beta=BETA), ipo),
    "simpo": (2, lambda *x: simpo_loss(*x, beta=BETA, gamma=GAMMA), simpo),
    "smoothed simpo": (
        2,
        lambda *x: simpo_loss(*x, beta=BETA, gamma=GAMMA, label_smoothing=SMOOTHING),
        lambda *x: simpo(*x, smoothing=SMOOTHING),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_rewards_and_gradients(name):
    takes, loss, formula = CASES[name]
    sides = drawn()
    made = loss(*sides[:takes])
    expected = [formula(*row) for row in zip(*(s.tolist() for s in sides[:takes]), strict=True)]
    true = torch.tensor(expected, dtype=torch.float64).T
    made.loss.sum().backward()
    for found, wanted in (
        (made.loss, true[0]),
        (sides[0].grad, true[1]),
        (sides[1].grad, -true[1]),
        (made.chosen, true[2]),
        (made.rejected, true[3]),
    ):
        torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)
    assert not made.chosen.requires_grad and not made.rejected.requires_grad


def test_bradley_terry_with_and_without_margins():
    chosen, rejected = drawn()[:2]
    margins = torch.rand(COUNT, dtype=torch.float64)
    for given in (None, margins):
        chosen.grad = None
        loss = bradley_terry(chosen, rejected, given)
        loss.sum().backward()
        apart = (chosen - rejected - (0 if given is None else given)).tolist()
        torch.testing.assert_close(loss.tolist(), [-math.log(sigmoid(x)) for x in apart])
        torch.testing.assert_close(chosen.grad.tolist(), [-sigmoid(-x) for x in apart])


@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_left_for_float32(name):
    takes, loss, _ = CASES[name]
    made = loss(*drawn(dtype=torch.bfloat16)[:takes])
    assert {x.dtype for x in made} == {torch.float32}


def test_far_apart_is_still_finite():
    far = torch.tensor([3e4, -3e4])
    for made in (dpo_loss(far, -far, far * 0, far * 0), simpo_loss(far, -far)):
        assert made.loss.isfinite().all()
    assert bradley_terry(far, -far)[1] == 6e4


def test_log_probabilities_are_of_the_answer_alone():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, dtype=torch.float64)
    labels = torch.tensor([[IGNORE, 3, 1, IGNORE], [IGNORE, IGNORE, 2, IGNORE]])
    logs = logits.exp() / logits.exp().sum(-1, keepdim=True)
    first = math.log(logs[0, 1, 3]) + math.log(logs[0, 2, 1])
    second = math.log(logs[1, 2, 2])
    torch.testing.assert_close(answer_log_probs(logits, labels).tolist(), [first, second])
    mean = answer_log_probs(logits, labels, mean=True).tolist()
    torch.testing.assert_close(mean, [first / 2, second])
