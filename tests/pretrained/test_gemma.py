"""Gemma, Gemma 2, Gemma 3: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import gemmas as cases
from folders import REMOVED, change, config_of, refuses, rewrite, same, weights_of, write
from harness import randomise

LINEAR = {"rope_type": "linear", "factor": 4.0}
OLD = {"rope_parameters": REMOVED, "layer_types": REMOVED, "use_bidirectional_attention": REMOVED}
"""Version 4 has rotary bases and the pattern of layers in fields of their own."""
DEFAULTS = {
    "attention_bias": REMOVED,
    "attention_dropout": REMOVED,
    "attn_logit_softcapping": REMOVED,
    "final_logit_softcapping": REMOVED,
    "head_dim": REMOVED,
    "hidden_act": REMOVED,
    "hidden_activation": REMOVED,
    "layer_types": REMOVED,
    "max_position_embeddings": REMOVED,
    "num_key_value_heads": REMOVED,
    "query_pre_attn_scalar": REMOVED,
    "rms_norm_eps": REMOVED,
    "rope_parameters": REMOVED,
    "sliding_window": REMOVED,
    "tie_word_embeddings": REMOVED,
    "use_bidirectional_attention": REMOVED,
}


@pytest.mark.parametrize(
    ("model", "config", "heads"),
    [
        (transformers.GemmaForCausalLM, transformers.GemmaConfig, 16),
        (transformers.Gemma2ForCausalLM, transformers.Gemma2Config, 4),
        (transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig, 4),
    ],
)
def test_absent_fields_are_those_of_transformers(tmp_path, model, config, heads):
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 7}
    theirs = write(model(config(**sizes, num_attention_heads=heads)), tmp_path)
    change(tmp_path, **DEFAULTS)
    ours = same(cases, tmp_path, theirs)
    assert ours.config.max_tokens == theirs.config.max_position_embeddings
    windows = [ours.config.at(i).window for i in range(7)]
    kinds = getattr(theirs.config, "layer_types", [None] * 7)
    assert windows == [4096 if kind == cases.NEAR else None for kind in kinds]


def test_gemma_as_first_published(tmp_path):
    theirs = write(cases.gemma()(), tmp_path)
    change(tmp_path, hidden_act="gelu", hidden_activation=None, rope_theta=10_000.0, **OLD)
    same(cases, tmp_path, theirs)


def test_gemma2_as_published(tmp_path):
    """Every second layer sees all, whatever the number of layers."""
    theirs = write(cases.gemma2(layer_types=None, num_hidden_layers=3)(), tmp_path)
    change(tmp_path, rope_theta=10_000.0, hidden_act="gelu_pytorch_tanh", **OLD)
    assert same(cases, tmp_path, theirs).config.layers == ({"window": 5}, {})


@pytest.mark.parametrize("scaling", [None, LINEAR, {"type": "linear", "factor": 4.0}], ids=str)
def test_gemma3_as_published(tmp_path, scaling):
    rope = {cases.NEAR: {"rope_theta": 50.0}, cases.FAR: {"rope_theta": 700.0, **(scaling or {})}}
    rope = {kind: {"rope_type": "default", **fields} for kind, fields in rope.items()}
    if scaling:
        rope[cases.FAR]["rope_type"] = "linear"
    kinds = ([cases.NEAR] * 2 + [cases.FAR]) * 2
    build = cases.gemma3(rope_parameters=rope, layer_types=kinds, num_hidden_layers=6)
    theirs = write(build(), tmp_path)
    bases = {"rope_theta": 700, "rope_local_base_freq": 50, "rope_scaling": scaling}
    change(tmp_path, **{**OLD, **bases}, sliding_window_pattern=3)
    ours = same(cases, tmp_path, theirs)
    assert ours.config.rotary_base == 700 and ours.config.at(1).rotary_base == 50
    assert len(ours.config.layers) == 3


def test_gemma3_with_layers_of_one_kind(tmp_path):
    rope = {kind: {"rope_type": "default", "rope_theta": 50.0} for kind in (cases.NEAR, cases.FAR)}
    near = cases.gemma3(rope_parameters=rope, layer_types=[cases.NEAR] * 4)
    theirs = write(near(), tmp_path / "theirs")
    ours = same(cases, tmp_path / "theirs", theirs)
    assert ours.config.layers == ({"window": 5},) and ours.config.rotary_base == 50
    family.save_pretrained(ours, tmp_path / "ours", format="gemma3_text")
    assert config_of(tmp_path / "ours")["layer_types"] == [cases.NEAR] * 4
    same(cases, tmp_path / "ours", theirs)


def test_both_layouts_are_written(tmp_path):
    theirs = write(cases.gemma3(rope_parameters=cases.BASES)(), tmp_path / "theirs")
    ours = same(cases, tmp_path / "theirs", theirs)
    family.save_pretrained(ours, tmp_path / "ours", format="gemma3_text")
    config = config_of(tmp_path / "ours")
    assert config["rope_theta"] == 700 and config["rope_local_base_freq"] == 50
    assert config["rope_scaling"] == LINEAR and config["query_pre_attn_scalar"] == 20
    # What version 4 reads.
    change(tmp_path / "ours", rope_parameters=REMOVED)
    same(cases, tmp_path / "ours", theirs)


@pytest.mark.parametrize(
    ("build", "bare"),
    [
        (cases.gemma(), "GemmaModel"),
        (cases.gemma2(final_logit_softcapping=None), "Gemma2Model"),
        (cases.gemma3(), "Gemma3TextModel"),
    ],
)
def test_bare_stack(tmp_path, build, bare):
    theirs = write(build(), tmp_path)
    assert "lm_head.weight" not in weights_of(tmp_path)
    rewrite(tmp_path, lambda name: name.removeprefix("model."))
    change(tmp_path, architectures=[bare])
    same(cases, tmp_path, theirs)


def test_factor_of_embeddings_is_rounded_in_half_precision():
    theirs = cases.gemma2(hidden_size=40)().eval()
    randomise(theirs)
    ours, ids = family.from_pretrained(theirs.bfloat16()), torch.arange(97)[None]
    assert torch.equal(ours.embedding(ids, ids[0]), theirs.model.embed_tokens(ids))


@pytest.mark.parametrize(
    ("build", "fields", "words"),
    [
        (
            cases.gemma(),
            {"use_bidirectional_attention": True},
            ["use_bidirectional_attention=True"],
        ),
        (cases.gemma(), {"hidden_act": "silu"}, ["hidden_activation='gelu_tanh'", "'silu'"]),
        (cases.gemma(), {"rope_parameters": {"rope_type": "dynamic", "factor": 2}}, ["dynamic"]),
        (cases.gemma(), {"rope_parameters": {"partial_rotary_factor": 0.5}}, ["partial_rotary"]),
        (cases.gemma2(), {"use_bidirectional_attention": True}, ["use_bidirectional_attention"]),
        (cases.gemma2(), {"layer_types": ["chunked_attention"] * 4}, ["'chunked_attention'"]),
        (cases.gemma2(), {"layer_types": [cases.NEAR]}, ["layer_types", "4"]),
        (cases.gemma2(), {"layer_types": 4}, ["config.json"]),
        (cases.gemma2(), {"sliding_window": None}, ["sliding_window=None"]),
        (cases.gemma2(), {"sliding_window": 0}, ["window", "0"]),
        (cases.gemma2(), {"query_pre_attn_scalar": "20"}, ["config.json"]),
        (cases.gemma2(), {"query_pre_attn_scalar": 0}, ["config.json"]),
        (cases.gemma2(), {"hidden_activation": "mish"}, ["hidden_activation='mish'"]),
        (cases.gemma3(), {"use_bidirectional_attention": True}, ["use_bidirectional_attention"]),
        (cases.gemma3(), {"attn_logit_softcapping": 50.0}, ["attn_logit_softcapping=50.0"]),
        (
            cases.gemma3(),
            {"rope_parameters": {"rope_theta": 1e4}},
            ["rope_parameters", "rope_theta"],
        ),
        (cases.gemma3(), {"rope_parameters": {cases.NEAR: {"rope_type": "ntk"}}}, ["ntk"]),
        (cases.gemma3(), {"rope_parameters": [1]}, ["config.json"]),
        (
            cases.gemma3(),
            {"layer_types": REMOVED, "sliding_window_pattern": 0},
            ["config.json"],
        ),
        (cases.gemma3(), {"model_type": "gemma3"}, ["model_type='gemma3'"]),
        (cases.gemma3(), {"architectures": ["Gemma3ForConditionalGeneration"]}, ["Conditional"]),
    ],
)
def test_refused(tmp_path, build, fields, words):
    write(build(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


def small(**options):
    fields = {
        "norm": "offset_rmsnorm",
        "norm_order": "sandwich",
        "activation": "gelu_tanh",
        "head_dim": 8,
        **options,
    }
    config = family.llama(97, dim=32, depth=2, heads=4, **fields).config
    return family.GPT(97, config, scale_embeddings=True)


@pytest.mark.parametrize(
    ("options", "format", "words"),
    [
        ({"attention_scale": 0.3}, "gemma2", ["attention_scale=0.3", "query_pre_attn_scalar"]),
        ({"attention_scale": 0.0}, "gemma2", ["attention_scale=0.0"]),
        ({"layers": ({"window": 5}, {"window": 6})}, "gemma2", ["window=[5, 6]"]),
        ({"layers": ({"rotary_base": 5}, {})}, "gemma2", ["rotary_base=[5, 10000"]),
        ({"qk_norm": "offset_rmsnorm", "score_cap": 5.0}, "gemma3_text", ["score_cap=5.0"]),
        ({"qk_norm": "rmsnorm"}, "gemma3_text", ["qk_norm='rmsnorm'"]),
        ({"norm": "rmsnorm"}, "gemma2", ["norm='rmsnorm'"]),
        ({}, "gemma", ["branch_norm"]),
        ({"norm_order": "pre", "window": 5}, "gemma", ["window=5"]),
    ],
)
def test_models_that_a_format_cannot_express(tmp_path, options, format, words):
    with pytest.raises(ValueError) as caught:
        family.save_pretrained(small(**options), tmp_path / "model", format=format)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("window", [None, 5])
def test_models_of_our_own(tmp_path, window):
    """Without caps or a factor on scores, and with one window in all layers, or none."""
    ours = small(window=window).eval()
    family.save_pretrained(ours, tmp_path / "model", format="gemma2")
    theirs = transformers.Gemma2ForCausalLM.from_pretrained(tmp_path / "model")
    same(cases, tmp_path / "model", theirs)
