"""Llama, Mistral, Qwen2: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from cases import causal
from folders import REMOVED, change, config_of, refuses, rewrite, same, weights_of, write

OLD = {"rope_parameters": REMOVED, "rope_theta": 500.0}
"""Version 4 has the base beside the scaling."""
ANGLES = "model.layers.0.self_attn.rotary_emb.inv_freq"


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ({}, {}),
        ({"rope_type": "linear", "factor": 4.0}, {"type": "linear", "factor": 4.0}),
        ({**causal.LLAMA3}, {n: v for n, v in causal.LLAMA3.items() if n != "rope_theta"}),
    ],
    ids=["plain", "linear", "llama3"],
)
def test_layout_of_version_4(tmp_path, new, old):
    rope = {"rope_type": "default", "rope_theta": 500.0, **new}
    theirs = write(causal.llama(rope_parameters=rope)(), tmp_path)
    change(tmp_path, **OLD, rope_scaling=old or None, head_dim=REMOVED)
    rewrite(tmp_path, **{ANGLES: torch.ones(4)})
    ours = same(causal, tmp_path, theirs)
    assert ours.config.rotary_base == 500


def test_first_llama_has_no_grouped_heads(tmp_path):
    theirs = write(causal.llama(num_key_value_heads=4)(), tmp_path)
    change(tmp_path, num_key_value_heads=REMOVED, head_dim=None, rope_parameters=REMOVED)
    assert same(causal, tmp_path, theirs).config.kv_heads == 4


def test_llama3_scaling_of_the_whole_context(tmp_path):
    """Without ``original_max_position_embeddings``, the context is that of pre-training."""
    rope = {n: v for n, v in causal.LLAMA3.items() if n != "original_max_position_embeddings"}
    theirs = write(causal.llama(rope_parameters=rope)(), tmp_path)
    ours = same(causal, tmp_path, theirs)
    assert ours.config.rotary_scaling.tokens == causal.CONTEXT


def test_bare_stack(tmp_path):
    theirs = write(causal.llama(tie_word_embeddings=True)(), tmp_path)
    rewrite(tmp_path, lambda name: name.removeprefix("model."))
    change(tmp_path, architectures=["LlamaModel"])
    same(causal, tmp_path, theirs)


@pytest.mark.parametrize("kept", ["lm_head.weight", "model.embed_tokens.weight"])
def test_tied_table_under_either_name(tmp_path, kept):
    theirs = write(causal.llama(tie_word_embeddings=True)(), tmp_path)
    table = weights_of(tmp_path)["model.embed_tokens.weight"]
    rewrite(tmp_path, lambda name: "" if "embed" in name else name, **{kept: table})
    same(causal, tmp_path, theirs)


def test_tied_tables_that_differ(tmp_path):
    write(causal.llama(tie_word_embeddings=True)(), tmp_path)
    table = weights_of(tmp_path)["model.embed_tokens.weight"]
    rewrite(tmp_path, **{"lm_head.weight": table + 1})
    refuses(tmp_path, "lm_head.weight", "differs")


def test_mistral_without_a_window(tmp_path):
    theirs = write(causal.mistral(), tmp_path)
    theirs.config.sliding_window = None
    change(tmp_path, sliding_window=None)
    assert same(causal, tmp_path, theirs).config.window is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, ["yarn", "default, linear, llama3"]),
        ({"rope_scaling": {"type": "linear"}}, ["rope_scaling", "factor"]),
        ({"rope_scaling": {"type": "linear", "factor": "x"}}, ["rotary_scaling", "'x'"]),
        ({"rope_scaling": {"rope_type": ["a"]}}, ["config.json"]),
        ({"rope_scaling": "linear"}, ["rope_scaling='linear'"]),
        ({"rope_parameters": {"full_attention": {}}}, ["rope_parameters", "full_attention"]),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ["partial_rotary_factor=0.5"]),
        ({"attention_bias": True}, ["attention_bias=True", "mlp_bias=False"]),
        ({"hidden_act": "mish"}, ["hidden_act='mish'"]),
        ({"hidden_size": REMOVED}, ["hidden_size"]),
        ({"num_attention_heads": "4"}, ["heads", "'4'"]),
        ({"num_attention_heads": 0}, ["heads"]),
        ({"num_key_value_heads": 3}, ["kv_heads=3"]),
        ({"num_hidden_layers": 4}, ["no weight model.layers.3"]),
        ({"num_hidden_layers": 2}, ["model.layers.2", "no place"]),
        ({"intermediate_size": 64}, ["mlp.gate_proj", "shape"]),
        ({"vocab_size": 98}, ["embed_tokens", "(97, 32)", "(98, 32)"]),
        ({"tie_word_embeddings": True}, ["lm_head.weight", "differs"]),
        ({"architectures": ["LlamaForSequenceClassification"]}, ["LlamaForSequence"]),
        ({"model_type": "llama4"}, ["model_type='llama4'"]),
    ],
    ids=str,
)
def test_refused_llama(tmp_path, fields, words):
    write(causal.llama()(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use_sliding_window": True}, ["use_sliding_window=True"]),
        ({"layer_types": ["full_attention", "sliding_attention"]}, ["sliding_attention"]),
        ({"layer_types": 3}, ["config.json"]),
    ],
    ids=str,
)
def test_refused_qwen2(tmp_path, fields, words):
    write(causal.qwen2(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


def small(**options):
    sizes = {"dim": 32, "depth": 2, "heads": 4, "ffn_dim": 80, "max_tokens": 64}
    return family.llama(97, **{**sizes, **options})


@pytest.mark.parametrize(
    ("options", "format", "words"),
    [
        ({"qkv_bias": True}, "llama", ["attention_bias=True"]),
        ({"window": 8}, "llama", ["window=8"]),
        ({"rotary_dim": 4}, "mistral", ["rotary_dim=4"]),
        ({"parallel": True}, "llama", ["parallel=True"]),
        ({"qk_norm": True}, "qwen2", ["norm"]),
        ({"norm": "layernorm"}, "llama", ["norm"]),
        ({}, "qwen2", ["qkv_bias=False"]),
    ],
    ids=str,
)
def test_models_that_a_format_cannot_express(tmp_path, options, format, words):
    with pytest.raises(ValueError) as caught:
        family.save_pretrained(small(**options), tmp_path / "model", format=format)
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_written_config_names_no_tokens_that_are_not_there(tmp_path):
    family.save_pretrained(small(), tmp_path / "model", format="llama")
    config = config_of(tmp_path / "model")
    assert config["eos_token_id"] is config["bos_token_id"] is None
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000
