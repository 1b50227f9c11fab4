"""Qwen3, dense and with experts: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family
from family.pretrained.layers import by_layer

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import causal, llamas
from folders import REMOVED, change, config_of, refuses, rewrite, same, weights_of, write

OLD = {"rope_parameters": REMOVED, "rope_theta": 500.0, "rope_scaling": None}
"""Version 4 has the base beside the scaling."""
MOE = {"moe_intermediate_size": 24, "num_experts": 5, "num_experts_per_tok": 2}


def dense(**options):
    rope = {"rope_type": "default", "rope_theta": 500.0}
    return llamas.of("Qwen3", llamas.WIDE, rope_parameters=rope, **options)()


def mixed(**options):
    rope = {"rope_type": "default", "rope_theta": 500.0}
    return llamas.of("Qwen3Moe", llamas.WIDE, rope_parameters=rope, **MOE, **options)()


def test_layout_of_version_4(tmp_path):
    theirs = write(dense(), tmp_path)
    change(tmp_path, **OLD, layer_types=REMOVED, attention_bias=REMOVED, sliding_window=None)
    ours = same(causal, tmp_path, theirs)
    assert ours.config.rotary_base == 500 and ours.config.layers == ()


def test_heads_are_128_wide_unless_said_otherwise(tmp_path):
    theirs = write(dense(head_dim=128), tmp_path)
    change(tmp_path, head_dim=REMOVED)
    assert same(causal, tmp_path, theirs).config.head_dim == 128


def test_bare_stack(tmp_path):
    theirs = write(dense(tie_word_embeddings=True), tmp_path)
    rewrite(tmp_path, lambda name: name.removeprefix("model."))
    change(tmp_path, architectures=["Qwen3Model"])
    same(causal, tmp_path, theirs)


def test_mixture_in_the_layout_of_version_4(tmp_path):
    """One name for the number of experts there, another in version 5; defaults that are left out."""
    theirs = write(mixed(), tmp_path)
    change(tmp_path, **OLD, num_local_experts=REMOVED, num_experts=5, mlp_only_layers=REMOVED)
    change(tmp_path, decoder_sparse_step=REMOVED, norm_topk_prob=REMOVED, max_window_layers=3)
    config = same(causal, tmp_path, theirs).config
    assert (config.experts, config.normalize_routing) == (5, False)


def test_mixture_has_heads_of_its_width_over_their_number(tmp_path):
    theirs = write(llamas.of("Qwen3Moe", causal.LLAMA, **MOE)(), tmp_path)
    change(tmp_path, head_dim=REMOVED)
    assert same(causal, tmp_path, theirs).config.head_dim == 8


def test_experts_packed_together(tmp_path):
    theirs = mixed(decoder_sparse_step=2).eval()
    theirs.save_pretrained(tmp_path, save_original_format=False)
    names = weights_of(tmp_path).keys()
    assert "model.layers.1.mlp.experts.gate_up_proj" in names
    same(causal, tmp_path, theirs)


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, ["experts"] * 4),
        ({"decoder_sparse_step": 2}, ["dense", "experts"] * 2),
        ({"decoder_sparse_step": 3}, ["dense", "dense", "experts", "dense"]),
        ({"mlp_only_layers": [0, 3]}, ["dense", "experts", "experts", "dense"]),
        ({"mlp_only_layers": [1], "decoder_sparse_step": 2}, ["dense"] * 3 + ["experts"]),
        ({"mlp_only_layers": [0, 1, 2, 3]}, ["dense"] * 4),
    ],
    ids=str,
)
def test_layers_with_experts(tmp_path, fields, kinds):
    """Read, and written so that transformers builds the same."""
    theirs = write(mixed(num_hidden_layers=4, **fields), tmp_path / "theirs")
    ours = same(causal, tmp_path / "theirs", theirs)
    assert by_layer(ours.config, "feedforward") == kinds
    family.save_pretrained(ours, tmp_path / "ours", format="qwen3_moe")
    again = transformers.Qwen3MoeForCausalLM.from_pretrained(tmp_path / "ours")
    same(causal, tmp_path / "ours", again)
    assert config_of(tmp_path / "ours")["num_experts"] == 5  # which alone version 4 knows


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, ["dynamic"]),
        ({"attention_bias": True}, ["self_attn.q_proj.bias"]),
        ({"hidden_act": "mish"}, ["hidden_act='mish'"]),
        ({"layer_types": ["sliding_attention"] * 3}, ["sliding_attention", "no window"]),
        ({"layer_types": ["linear_attention"] * 3}, ["linear_attention"]),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, ["Qwen3ForSequence"]),
    ],
    ids=str,
)
def test_refused(tmp_path, fields, words):
    write(dense(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_local_experts": 4}, ["mlp.gate.weight", "(5, 32)", "(4, 32)"]),
        ({"num_local_experts": 0}, ["experts"]),
        ({"num_experts_per_tok": 6}, ["experts_per_token=6", "experts=5"]),
        ({"moe_intermediate_size": 16}, ["mlp.experts.0", "shape"]),
        ({"decoder_sparse_step": 2}, ["no weight model.layers.0.mlp.gate_proj"]),
        ({"decoder_sparse_step": 0}, ["config.json"]),
        ({"mlp_only_layers": 3}, ["config.json"]),
    ],
    ids=str,
)
def test_refused_mixture(tmp_path, fields, words):
    write(mixed(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


SIZES = {"dim": 32, "depth": 2, "heads": 4, "ffn_dim": 24, "max_tokens": 64, "qk_norm": True}
MIXTURE = {**SIZES, "feedforward": "experts", "experts": 3}


@pytest.mark.parametrize(
    ("options", "format", "words"),
    [
        ({**SIZES, "qk_norm": None}, "qwen3", ["qk_norm"]),
        ({**SIZES, "qk_norm_whole": True}, "qwen3", ["qk_norm_whole=True"]),
        (MIXTURE, "qwen3", ["router"]),
        ({**MIXTURE, "shared_experts": 1}, "qwen3_moe", ["shared"]),
        ({**MIXTURE, "layers": [{"experts": 2}, {}]}, "qwen3_moe", ["experts=[2, 3]"]),
        ({**MIXTURE, "layers": [{"window": 4}, {}]}, "qwen3_moe", ["window=[4, None]"]),
    ],
    ids=str,
)
def test_models_that_a_format_cannot_express(tmp_path, options, format, words):
    with pytest.raises(ValueError) as caught:
        family.save_pretrained(family.llama(97, **options), tmp_path / "model", format=format)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_mixture_as_an_override_of_a_dense_stack(tmp_path):
    """What our config calls the rule, and what the exception, does not matter."""
    mixture = {"feedforward": "experts", "ffn_dim": 24}
    ours = family.llama(97, **{**SIZES, "ffn_dim": 80, "experts": 3}, layers=[{}, mixture]).eval()
    family.save_pretrained(ours, tmp_path / "model", format="qwen3_moe")
    config = config_of(tmp_path / "model")
    assert (config["intermediate_size"], config["moe_intermediate_size"]) == (80, 24)
    theirs = transformers.Qwen3MoeForCausalLM.from_pretrained(tmp_path / "model")
    ids = causal.batch()["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)
