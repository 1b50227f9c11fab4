"""Flow matching: the line from noise to data, its velocity, and the times that training draws."""

from __future__ import annotations

import pytest
import torch

from family.losses.flow import draw_times, flow_matching_loss, shifted, straight_path


def generator():
    return torch.Generator().manual_seed(0)


def test_a_straight_line_from_noise_to_data():
    noise, data = torch.randn(2, 3, 4, 5, 6, generator=generator(), dtype=torch.float64)
    time = torch.tensor([0.0, 0.25, 1.0])
    noisy, velocity = straight_path(noise, data, time)
    for row, t in enumerate(time.tolist()):
        torch.testing.assert_close(noisy[row], (1 - t) * noise[row] + t * data[row])
    torch.testing.assert_close(noisy + (1 - time.double())[:, None, None, None] * velocity, data)
    later, _ = straight_path(noise, data, time + 1e-3)  # the derivative of the line
    torch.testing.assert_close((later - noisy) / 1e-3, velocity, rtol=1e-4, atol=1e-4)


def test_the_loss_is_a_mean_square_in_float32():
    found, velocity = torch.randn(2, 3, 40, generator=generator())
    torch.testing.assert_close(
        flow_matching_loss(found, velocity), sum((found - velocity).flatten() ** 2) / 120
    )
    half = torch.full((70_000,), 2.0, dtype=torch.float16)
    loss = flow_matching_loss(half, -half)
    assert loss == 16 and loss.dtype == torch.float32


def test_times_have_the_distribution_that_was_asked_for():
    even = draw_times(20_000, generator=generator())
    assert even.min() >= 0 and even.max() < 1 and even.shape == (20_000,)
    quarters = torch.tensor([0.25, 0.5, 0.75])
    torch.testing.assert_close(even.quantile(quarters), quarters, rtol=0, atol=0.015)
    middle = draw_times(20_000, "logit_normal", generator=generator())
    # The quartiles of a standard normal number are -0.6745, 0, 0.6745.
    wanted = torch.tensor([-0.6745, 0.0, 0.6745]).sigmoid()
    torch.testing.assert_close(middle.quantile(quarters), wanted, rtol=0, atol=0.015)
    with pytest.raises(ValueError, match="times='cosine' is unknown; choose one of: uniform, log"):
        draw_times(3, "cosine")


def test_times_move_towards_noise():
    time = torch.linspace(0, 1, 9, dtype=torch.float64)
    noise = 1 - time  # eq. 23 of Esser et al. is of the share of noise
    wanted = 1 - 3 * noise / (1 + (3 - 1) * noise)
    torch.testing.assert_close(shifted(time, 3.0), wanted)
    torch.testing.assert_close(shifted(time, 1.0), time)
    drawn = draw_times(20_000, shift=3.0, generator=generator())
    even = draw_times(20_000, generator=generator())
    torch.testing.assert_close(drawn, shifted(even, 3.0))
    assert drawn.median().item() == pytest.approx(0.25, abs=0.01)
    with pytest.raises(ValueError, match="shift must be above 0, not 0"):
        draw_times(3, shift=0)
