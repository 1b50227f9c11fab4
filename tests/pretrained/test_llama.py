"""Llama, Mistral, Qwen2: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family
from family.pretrained.layers import by_layer
from family.pretrained.rope import read_rope

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import causal, llamas
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
    ("fields", "windows"),
    [
        ({"max_window_layers": 1}, [None, 5, 5]),  # the first layers see all
        ({"max_window_layers": REMOVED}, [None] * 3),  # 28 of them
        ({"max_window_layers": 0, "use_sliding_window": False}, [None] * 3),
        ({"max_window_layers": 0, "sliding_window": None}, [None] * 3),
        ({"max_window_layers": 0, "sliding_window": REMOVED}, [4096] * 3),
        ({"layer_types": llamas.KINDS}, [None, 5, None]),
    ],
)
def test_windows_of_qwen2(tmp_path, fields, windows):
    """As version 4 has them, without ``layer_types``."""
    write(llamas.of("Qwen2", causal.LLAMA, **llamas.NEAR)(), tmp_path)
    change(tmp_path, **{"layer_types": REMOVED, "use_sliding_window": True, **fields})
    change(tmp_path, **{"sliding_window": 5} if "sliding_window" not in fields else {})
    theirs = transformers.Qwen2ForCausalLM.from_pretrained(tmp_path)
    assert by_layer(same(causal, tmp_path, theirs).config, "window") == windows


def test_all_that_say_the_same_of_windows_are_written(tmp_path):
    """Whether a window is that of the stack or of its layers."""
    every = {"window": 4, "layers": [{"window": None}, {}]}
    for i, options in enumerate(({"window": 4}, {"layers": [{"window": 4}]}, every)):
        model = small(qkv_bias=True, **options)
        family.save_pretrained(model, tmp_path / f"{i}", format="qwen2")
        again = family.from_pretrained(tmp_path / f"{i}")
        assert by_layer(again.config, "window") == by_layer(model.config, "window")
    assert config_of(tmp_path / "2")["max_window_layers"] == 1


YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0}


def test_yarn_in_the_layout_of_version_4(tmp_path):
    """Qwen2.5 has the context of pre-training inside, and another kind's name for the kind."""
    rope = {**YARN, "original_max_position_embeddings": 32}
    theirs = write(causal.llama(rope_parameters=rope)(), tmp_path)
    old = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    change(tmp_path, **OLD, rope_scaling=old)
    scaling = same(causal, tmp_path, theirs).config.rotary_scaling
    assert (scaling.kind, scaling.low, scaling.high, scaling.tokens) == ("yarn", 1, 32, 32)


@pytest.mark.parametrize("factor", [REMOVED, None])
def test_a_factor_that_is_left_out_is_the_share_of_the_contexts(tmp_path, factor):
    rope = {**YARN, "original_max_position_embeddings": 32}
    theirs = write(causal.llama(rope_parameters=rope)(), tmp_path)
    rope = {n: v for n, v in {**rope, "factor": factor}.items() if v is not REMOVED}
    change(tmp_path, rope_parameters=rope)
    assert same(causal, tmp_path, theirs).config.rotary_scaling.factor == 4


def test_context_beside_the_scaling_has_the_last_word(tmp_path):
    rope = {**YARN, "original_max_position_embeddings": 32}
    theirs = write(causal.llama(rope_parameters=rope)(), tmp_path)
    rope["original_max_position_embeddings"] = 64
    change(tmp_path, rope_parameters=rope, original_max_position_embeddings=32)
    assert same(causal, tmp_path, theirs).config.rotary_scaling.tokens == 32


def test_rope_parameters_of_one_kind_of_layers():
    """As Gemma 3 has them in version 5: each is read by itself."""
    near = {"rope_type": "default", "rope_theta": 10_000.0}
    far = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
    arguments, fraction = read_rope({"rope_parameters": near})
    assert arguments["config.rotary_scaling"] is None and fraction == 1
    arguments, _ = read_rope({"rope_parameters": far, "max_position_embeddings": 128})
    assert arguments["config.rotary_base"] == 1e6 and arguments["config.rotary_scaling"] == 8


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2}},
            ["dynamic", "default, linear, llama3"],
        ),
        ({"rope_scaling": {"type": "yarn"}}, ["rope_scaling", "factor"]),
        ({"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 1}}, ["low=1.0", "high=1"]),
        ({"rope_scaling": {"type": "longrope", "factor": 2}}, ["rope_scaling", "short_factor"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor=0.5"]),
        ({"rope_scaling": {"type": "linear"}}, ["rope_scaling", "factor"]),
        ({"rope_scaling": {"type": "linear", "factor": "x"}}, ["rotary_scaling", "'x'"]),
        ({"rope_scaling": {"rope_type": ["a"]}}, ["config.json"]),
        ({"rope_scaling": "linear"}, ["rope_scaling='linear'"]),
        ({"rope_parameters": {"full_attention": {}}}, ["rope_parameters", "full_attention"]),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ["partial_rotary_factor=0.5"]),
        ({"attention_bias": True}, ["self_attn.q_proj.bias"]),
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
)
def test_refused_llama(tmp_path, fields, words):
    write(causal.llama()(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"layer_types": ["full_attention"] * 2}, ["layer_types", "3"]),
        ({"layer_types": ["full_attention"] * 2 + ["chunked_attention"]}, ["chunked_attention"]),
        ({"layer_types": 3}, ["config.json", "layer_types=3"]),
        (
            {"layer_types": ["full_attention"] * 2 + ["sliding_attention"]},
            ["sliding_attention", "use_sliding_window=False"],
        ),
    ],
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
        ({"qkv_bias": True}, "llama", ["qkv_bias=True"]),
        ({"layers": [{}, {"window": 8}]}, "llama", ["window=[None, 8]"]),
        ({"layers": [{"window": 8}, {"window": 9}], "qkv_bias": True}, "qwen2", ["window=[8, 9]"]),
        ({"window": 8}, "llama", ["window=8"]),
        ({"rotary_dim": 4}, "mistral", ["rotary_dim=4"]),
        ({"parallel": True}, "llama", ["parallel=True"]),
        ({"qk_norm": True}, "qwen2", ["norm"]),
        ({"norm": "layernorm"}, "llama", ["norm"]),
        ({}, "qwen2", ["qkv_bias=False"]),
    ],
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
