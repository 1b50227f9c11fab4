"""Rotary positions: which channels turn, and how fast."""

from __future__ import annotations

import pytest
import torch

from family import Transformer, TransformerConfig
from family.core.rotary import Rotary, RotaryScaling, apply_rotary, rotary_frequency
from family.pretrained.rope import read_rope, rotary_dim, turning_fraction, write_rope

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


FIELDS = {
    "default": {},
    "linear": {"factor": 2.5},
    "llama3": dict(
        zip(
            ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
            NUMBERS,
            strict=True,
        )
    ),
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 32_768},
    "yarn, own borders": {
        **{"factor": 16.0, "original_max_position_embeddings": 4096, "attention_factor": 0.8},
        **{"beta_fast": 24.0, "beta_slow": 0.5, "truncate": False},
    },
    "yarn, own magnitude": {
        **{"factor": 40, "original_max_position_embeddings": 4096},
        **{"mscale": 1.0, "mscale_all_dim": 0.707},
    },
    "yarn, one scale of two": {
        **{"factor": 40, "original_max_position_embeddings": 4096, "mscale": 0.5},
    },
    "yarn, short": {"factor": 4.0, "original_max_position_embeddings": 4},
    "longrope": {"original_max_position_embeddings": 4096},
    "longrope, factor": {"original_max_position_embeddings": 4096, "factor": 8.0},
    "longrope, own magnitude": {"attention_factor": 1.3},
    "longrope, shorter": {"original_max_position_embeddings": 262_144},
}
"""Of transformers' parameters, by kind."""


def peer_config(kind, dim, base, fraction=1.0):
    """A config of theirs, and what it turns a head's channels by."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    fields, (name, _, _) = dict(FIELDS[kind]), kind.partition(",")
    if name == "longrope":
        for sort, least in (("short", 1.0), ("long", 3.0)):
            fields[f"{sort}_factor"] = [least + 0.37 * i for i in range(int(dim * fraction) // 2)]
    config = transformers.LlamaConfig(
        hidden_size=4 * dim,
        num_attention_heads=4,
        max_position_embeddings=131_072,
        rope_parameters={
            **{"rope_type": name, "rope_theta": base, "partial_rotary_factor": fraction},
            **fields,
        },
    )
    compute = ROPE_INIT_FUNCTIONS.get(name, LlamaRotaryEmbedding.compute_default_rope_parameters)
    return config, compute


@pytest.mark.parametrize("base", [10_000.0, 500_000.0, 10_000])
@pytest.mark.parametrize("dim", [64, 80, 128])
@pytest.mark.parametrize("kind", FIELDS)
def test_frequencies_are_those_of_transformers_bit_for_bit(kind, dim, base):
    config, compute = peer_config(kind, dim, base)
    expected, magnitude = compute(config)
    if kind.startswith("longrope"):
        expected = torch.stack([expected, compute(config, seq_len=1_000_000)[0]])
    arguments, fraction = read_rope(config.to_dict())
    assert fraction == 1
    scaling = arguments["config.rotary_scaling"]
    assert torch.equal(rotary_frequency(dim, base, scaling), expected)
    fields = {name.partition(".")[2]: value for name, value in arguments.items()}
    stack = Transformer(TransformerConfig(4 * dim, 1, 4, **fields))
    assert torch.equal(stack.rotaries[0].frequency, expected)
    assert stack.rotaries[0].magnitude == magnitude
    # And written again, in both layouts.
    written = write_rope(stack.config)
    for layout in ("rope_parameters", "rope_scaling"):
        theirs = type(config)(**{**config.to_dict(), **written, layout: None})
        again, their_magnitude = compute(theirs)
        assert torch.equal(again, expected.reshape(-1, dim // 2)[0])
        assert their_magnitude == magnitude


@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn", "longrope"])
def test_frequencies_of_heads_that_turn_in_part(kind):
    config, compute = peer_config(kind, 80, 10_000.0, fraction=0.4)
    arguments, fraction = read_rope(config.to_dict())
    count = rotary_dim(config.to_dict(), fraction)
    assert count == 32
    ours = rotary_frequency(count, 10_000.0, arguments["config.rotary_scaling"])
    assert torch.equal(ours.reshape(-1, 16)[0], compute(config)[0])
    stack = TransformerConfig(320, heads=4, position="rotary", rotary_dim=count)
    assert rotary_dim(config.to_dict(), turning_fraction(stack)) == count


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_longrope_is_decided_row_by_row(dtype):
    """Up to ``tokens`` tokens the short factors, for more the long ones, whatever stands beside."""
    scaling = RotaryScaling("longrope", tokens=8, magnitude=1.25, short=(1, 2), long=(3, 4))
    rotary = Rotary(4, scaling=scaling)
    within, beyond = torch.arange(8), torch.arange(1, 9)
    cos, sin = rotary(torch.stack([within, beyond]), dtype)
    for row, positions, factors in ((0, within, (1, 2)), (1, beyond, (3, 4))):
        exponents = 10_000.0 ** torch.tensor([0.0, 0.5])
        angles = positions[:, None] * (1.0 / (torch.tensor(factors) * exponents)).to(dtype)
        torch.testing.assert_close(cos[row, 0, :, :2], 1.25 * angles.cos(), check_dtype=False)
        torch.testing.assert_close(sin[row, 0, :, 2:], 1.25 * angles.sin(), check_dtype=False)
        alone = rotary(positions, dtype)
        assert torch.equal(alone[0], cos[row, 0]) and torch.equal(alone[1], sin[row, 0])


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
