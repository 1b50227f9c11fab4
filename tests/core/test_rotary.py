"""Rotary positions: which channels turn, and how fast."""

from __future__ import annotations

import pytest
import torch

from family import Transformer, TransformerConfig
from family.core.rotary import Rotary, RotaryScaling, apply_rotary, rotary_frequency

NUMBERS = (8.0, 1.0, 4.0, 8192)
LLAMA31 = RotaryScaling.llama3(*NUMBERS)


def test_partial_rotary_turns_the_first_channels_alone():
    torch.manual_seed(0)
    x, positions = torch.randn(2, 3, 5, 16), torch.arange(5)
    turned = apply_rotary(x, Rotary(6)(positions, torch.float32))
    assert torch.equal(turned[..., 6:], x[..., 6:])
    alone = apply_rotary(x[..., :6], Rotary(6)(positions, torch.float32))
    assert torch.equal(turned[..., :6], alone)
    # One pair written out: channel 1 goes with channel 1 + 6 / 2, by the second frequency.
    angle = 4 * torch.tensor(10_000.0) ** (-2 / 6)
    expected = x[..., 4, 1] * angle.cos() - x[..., 4, 4] * angle.sin()
    torch.testing.assert_close(turned[..., 4, 1], expected)


def test_partial_rotary_equals_gpt_neox():
    pytest.importorskip("transformers")
    from transformers.models.gpt_neox import modeling_gpt_neox as neox

    torch.manual_seed(0)
    config = neox.GPTNeoXConfig(
        hidden_size=64, num_attention_heads=4, rotary_pct=0.25, rotary_emb_base=5000
    )
    queries, keys = torch.randn(2, 4, 7, 16), torch.randn(2, 4, 7, 16)
    cos, sin = neox.GPTNeoXRotaryEmbedding(config)(queries, torch.arange(7)[None])
    ours = Transformer(
        TransformerConfig(64, heads=4, position="rotary", rotary_dim=4, rotary_base=5000)
    )
    turn = ours.rotaries[0](torch.arange(7), torch.float32)
    expected = neox.apply_rotary_pos_emb(queries, keys, cos, sin)
    for x, theirs in zip((queries, keys), expected, strict=True):
        torch.testing.assert_close(apply_rotary(x, turn), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("base", [10_000.0, 500_000.0, 10_000])
@pytest.mark.parametrize("dim", [64, 80, 128])
@pytest.mark.parametrize("kind", ["default", "linear", "llama3"])
def test_frequencies_are_those_of_transformers_bit_for_bit(kind, dim, base):
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    scaling = {"default": None, "linear": 2.5, "llama3": LLAMA31}[kind]
    fields = {
        "default": {},
        "linear": {"factor": 2.5},
        "llama3": dict(zip(names, NUMBERS, strict=True)),
    }[kind]
    config = transformers.LlamaConfig(
        hidden_size=4 * dim,
        num_attention_heads=4,
        max_position_embeddings=131_072,
        rope_parameters={"rope_type": kind, "rope_theta": base, **fields},
    )
    compute = ROPE_INIT_FUNCTIONS.get(kind, LlamaRotaryEmbedding.compute_default_rope_parameters)
    expected, factor = compute(config)
    assert factor == 1
    assert torch.equal(rotary_frequency(dim, base, scaling), expected)
    stack = Transformer(
        TransformerConfig(
            4 * dim, 1, 4, position="rotary", rotary_base=base, rotary_scaling=scaling
        )
    )
    assert torch.equal(stack.rotaries[0].frequency, expected)


def test_llama_scaling_spares_fast_pairs_and_slows_slow_ones():
    plain, scaled = rotary_frequency(128, 500_000.0), rotary_frequency(128, 500_000.0, LLAMA31)
    ratio = plain / scaled
    assert ratio[0] == 1 and ratio[-1] == 8
    assert (ratio.diff() >= -1e-6).all() and ((ratio > 1.01) & (ratio < 7.9)).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_angles_do_not_depend_on_the_dtype_of_the_model(dtype):
    """Frequencies rounded to bfloat16 would turn position 1,000 by a wrong angle."""
    rotary = Rotary(16, scaling=LLAMA31)
    expected = rotary(torch.arange(1000), torch.float32)
    for got, exact in zip(
        Rotary(16, scaling=LLAMA31).to(dtype)(torch.arange(1000), dtype), expected, strict=True
    ):
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), exact.to(dtype).float(), rtol=0, atol=1e-4)


def test_a_stack_made_without_memory_gets_its_frequencies_when_it_gets_memory():
    with torch.device("meta"):
        rotary = Rotary(16, scaling=4.0)
    assert rotary.frequency.is_meta
    assert torch.equal(rotary.to_empty(device="cpu").frequency, Rotary(16, scaling=4.0).frequency)
