"""OLMo 2: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from cases import gemmas as cases
from folders import REMOVED, change, config_of, refuses, rewrite, same, write


def test_as_published(tmp_path):
    theirs = write(
        cases.olmo2(rope_parameters={"rope_type": "default", "rope_theta": 500.0})(), tmp_path
    )
    change(tmp_path, rope_parameters=REMOVED, rope_scaling=None, rope_theta=500)
    assert same(cases, tmp_path, theirs).config.rotary_base == 500


def test_absent_fields_are_those_of_transformers(tmp_path):
    theirs = write(cases.olmo2(num_key_value_heads=None, max_position_embeddings=2048)(), tmp_path)
    names = ("num_key_value_heads", "rms_norm_eps", "hidden_act", "attention_bias")
    more = ("rope_parameters", "max_position_embeddings", "tie_word_embeddings")
    change(tmp_path, **dict.fromkeys(names + more, REMOVED))
    ours = same(cases, tmp_path, theirs)
    assert ours.config.norm_eps == theirs.config.rms_norm_eps == 1e-5
    assert ours.config.max_tokens == 2048


def test_bare_stack(tmp_path):
    theirs = write(cases.olmo2(tie_word_embeddings=True)(), tmp_path)
    rewrite(tmp_path, lambda name: name.removeprefix("model."))
    change(tmp_path, architectures=["Olmo2Model"])
    same(cases, tmp_path, theirs)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2}}, ["dynamic"]),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, ["partial_rotary_factor=0.5"]),
        ({"hidden_act": "mish"}, ["hidden_act='mish'"]),
        ({"model_type": "olmo"}, ["model_type='olmo'"]),
        ({"num_key_value_heads": 1}, ["shape"]),
    ],
    ids=str,
)
def test_refused(tmp_path, fields, words):
    write(cases.olmo2()(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"qk_norm": "rmsnorm"}, "qk_norm_whole=False"), ({"norm_order": "pre"}, "norm_order='pre'")],
    ids=str,
)
def test_models_that_it_cannot_express(tmp_path, options, word):
    usual = {"norm_order": "branch", "qk_norm": True, "qk_norm_whole": "qk_norm" not in options}
    model = family.llama(97, dim=32, depth=2, heads=4, **{**usual, **options})
    with pytest.raises(ValueError, match=word):
        family.save_pretrained(model, tmp_path / "model", format="olmo2")


def test_written_config(tmp_path):
    theirs = write(cases.olmo2()(), tmp_path / "theirs")
    ours = same(cases, tmp_path / "theirs", theirs)
    family.save_pretrained(ours, tmp_path / "ours", format="olmo2")
    config = config_of(tmp_path / "ours")
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10_000
    assert config["num_key_value_heads"] == 2
