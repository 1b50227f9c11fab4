"""Samplers on a field that is known exactly, that from noise to a Gaussian; guidance by its formula."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from family.generation.flow import follow, guided
from family.losses.flow import shifted

MEAN, STD = 0.7, 0.4


def gaussian(x, time):
    """The velocity to data of ``MEAN`` and ``STD``, in closed form.

    With x = (1 - t) noise + t data, both Gaussian, it is E[data - noise | x]: noise that follows it ends
    at ``MEAN + STD * noise``.
    """
    t = time.to(x.dtype)[:, None]
    variance = (1 - t) ** 2 + (t * STD) ** 2
    return MEAN + (t * STD**2 - (1 - t)) / variance * (x - t * MEAN)


def noise(count=64, dim=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_the_order_of_convergence(sampler, order):
    exact = MEAN + STD * noise()
    errors = [
        (follow(gaussian, noise(), steps, sampler) - exact).abs().max().item()
        for steps in (64, 128, 256)
    ]
    found = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert found == pytest.approx([order, order], abs=0.15)


@pytest.mark.parametrize(
    ("sampler", "steps", "shift"), [("euler", 200, 1.0), ("heun", 20, 1.0), ("heun", 20, 4.0)]
)
def test_noise_ends_in_the_distribution_of_the_data(sampler, steps, shift):
    ends = follow(gaussian, noise(20_000, 1), steps, sampler, partial(shifted, shift=shift))
    assert ends.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert ends.std().item() == pytest.approx(STD, abs=0.01)


def test_times_go_from_noise_to_data_in_equal_steps():
    for sampler, wanted in (
        ("euler", [0, 0.25, 0.5, 0.75]),
        ("heun", [0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1]),
    ):
        seen = []

        def field(x, time, seen=seen):
            assert time.shape == (5,) and len(set(time.tolist())) == 1
            seen.append(time[0].item())
            return torch.ones_like(x)

        end = follow(field, torch.zeros(5, 2), 4, sampler)
        assert seen == wanted and torch.equal(end, torch.ones(5, 2))


def test_steps_are_shorter_near_noise():
    seen = []

    def field(x, time):
        seen.append(time[0].item())
        return torch.ones_like(x)

    end = follow(field, torch.zeros(5, 2), 4, moved=partial(shifted, shift=3.0))
    assert seen == pytest.approx([0, 1 / 10, 1 / 4, 1 / 2])
    torch.testing.assert_close(end, torch.ones(5, 2))


def test_guidance_is_its_formula_in_one_call():
    calls = []

    def field(x, time):
        """The second half of the rows is told nothing."""
        calls.append(x.shape)
        told = torch.arange(len(x)) < len(x) // 2
        return torch.where(told[:, None], x * 2 + time[:, None], x.sin())

    x, time = noise(), torch.rand(64, dtype=torch.float64)
    told, untold = x * 2 + time[:, None], x.sin()
    for guidance in (0.0, 1.0, 4.5):
        torch.testing.assert_close(
            guided(field, guidance)(x, time), untold + guidance * (told - untold)
        )
    assert calls == [(128, 3)] * 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: follow(gaussian, noise(), 5, "ddim"), "sampler='ddim' is unknown.* euler, heun"),
        (lambda: follow(gaussian, noise(), 0), "steps must be .* at least 1, not 0"),
        (lambda: follow(gaussian, noise(), 2.5), "steps must be a whole number .* not 2.5"),
        (lambda: guided(gaussian, -1.0), "guidance must be .* at least 0, not -1.0"),
        (lambda: guided(gaussian, math.nan), "guidance must be .*, not nan"),
    ],
)
def test_one_sentence_for_what_cannot_be(call, words):
    with pytest.raises(ValueError, match=words):
        call()
