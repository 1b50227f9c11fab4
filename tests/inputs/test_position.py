"""Waves of published code, to the last bit."""

from __future__ import annotations

import pytest
import torch

from family import TransformerConfig
from family.inputs.position import SinusoidalPosition, make_position, sinusoidal


@pytest.mark.parametrize(("count", "dim"), [(1500, 384), (130, 32), (9, 4)])
def test_timing_is_that_of_whisper_and_of_m2m100(count, dim):
    """Far places of another rounding differ by 1e-4."""
    pytest.importorskip("transformers")
    from transformers.models.m2m_100 import modeling_m2m_100 as m2m100
    from transformers.models.whisper import modeling_whisper as whisper

    table = sinusoidal(torch.arange(count), dim, timing=True)
    assert torch.equal(table, whisper.sinusoids(count, dim))
    waves = m2m100.M2M100SinusoidalPositionalEmbedding.get_embedding(count + 2, dim)
    assert torch.equal(sinusoidal(2 + torch.arange(count), dim, timing=True), waves[2:])


def test_timing_of_two_channels_is_one_wave():
    table = sinusoidal(torch.tensor([0.0, 1.5]), 2, timing=True)
    angle = torch.tensor([0.0, 1.5])
    torch.testing.assert_close(table, torch.stack([angle.sin(), angle.cos()], 1))


def test_the_last_wave_is_ten_thousand_times_as_long():
    angles = sinusoidal(torch.tensor([10_000.0]), 16, timing=True)
    torch.testing.assert_close(angles[0, 7], torch.tensor(1.0).sin(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("stored", [False, True])
def test_where_a_table_is_kept(stored):
    config = TransformerConfig(dim=8, depth=1, heads=2, position="timing", max_tokens=5)
    position = make_position(config, 8, first=3, stored=stored)
    assert isinstance(position, SinusoidalPosition) and not list(position.parameters())
    assert list(position.state_dict()) == (["table"] if stored else [])
    expected = sinusoidal(torch.arange(3, 8), 8, timing=True)
    assert torch.equal(position(torch.arange(5)), expected)


@pytest.mark.parametrize("stored", [False, True])
def test_a_table_that_was_rounded_is_exact_again_unless_it_is_a_checkpoints(stored):
    position = SinusoidalPosition(50, 8, first=3, stored=stored)
    exact = position.table.clone()
    assert position.to(torch.bfloat16).table.dtype is torch.bfloat16
    assert torch.equal(position.float().table, exact) is not stored
