"""GPT-Neo: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from cases import gemmas as cases
from folders import REMOVED, change, config_of, refuses, rewrite, same, write


def test_as_published(tmp_path):
    """Buffers beside the weights, and the kinds of layers once more."""
    theirs = write(cases.neo()(), tmp_path)
    change(tmp_path, attention_layers=["global", "local"] * 2, tie_word_embeddings=REMOVED)
    layer = "transformer.h.1.attn.attention."
    buffers = {
        f"{layer}bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
        f"{layer}masked_bias": torch.tensor(-1e9),
    }
    rewrite(tmp_path, **buffers)
    assert same(cases, tmp_path, theirs).config.layers == ({}, {"window": 5})


def test_absent_fields_are_those_of_transformers(tmp_path):
    sizes = {"num_layers": 24, "hidden_size": 8, "num_heads": 2, "intermediate_size": None}
    context = {"max_position_embeddings": 2048, "window_size": 256, "attention_types": None}
    theirs = write(cases.neo(**sizes, **context)(), tmp_path)
    names = ("activation_function", "layer_norm_epsilon", "tie_word_embeddings")
    change(tmp_path, **dict.fromkeys((*names, "intermediate_size", *context), REMOVED))
    ours = same(cases, tmp_path, theirs)
    assert ours.config.layers == ({}, {"window": 256}) and ours.config.max_tokens == 2048


def test_bare_stack(tmp_path):
    theirs = write(cases.neo()(), tmp_path)
    rewrite(tmp_path, lambda name: name.removeprefix("transformer."))
    change(tmp_path, architectures=["GPTNeoModel"])
    same(cases, tmp_path, theirs)


@pytest.mark.parametrize("kind", ["global", "local"])
def test_layers_of_one_kind(tmp_path, kind):
    theirs = write(cases.neo(attention_types=[[[kind], 4]])(), tmp_path / "theirs")
    ours = same(cases, tmp_path / "theirs", theirs)
    assert ours.config.layers == (({"window": 5},) if kind == "local" else ())
    family.save_pretrained(ours, tmp_path / "ours", format="gpt_neo")
    assert config_of(tmp_path / "ours")["attention_types"] == [[[kind] * 4, 1]]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"attention_types": [[["global", "sparse"], 2]]}, ["attention_types", "'sparse'"]),
        ({"attention_types": [[["global", "local"], 3]]}, ["attention_types", "6", "num_layers=4"]),
        ({"attention_types": 3}, ["config.json"]),
        ({"attention_types": [["global", 4]]}, ["attention_types", "'g'"]),
        ({"window_size": 0}, ["window", "0"]),
        ({"activation_function": "mish"}, ["activation_function='mish'"]),
        ({"num_layers": REMOVED}, ["num_layers"]),
    ],
)
def test_refused(tmp_path, fields, words):
    write(cases.neo()(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


NEO = {"attention_scale": 1.0, "qkv_bias": False}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"qkv_bias": False}, ["attention_scale=None"]),
        ({"attention_scale": 1.0}, ["qkv_bias=True"]),
        ({**NEO, "layers": ({"window": 5}, {"window": 6})}, ["window=[5, 6]"]),
    ],
)
def test_models_that_it_cannot_express(tmp_path, options, words):
    model = family.gpt2(97, dim=32, depth=2, heads=4, max_tokens=16, **options)
    with pytest.raises(ValueError) as caught:
        family.save_pretrained(model, tmp_path / "model", format="gpt_neo")
    assert all(word in str(caught.value) for word in words), caught.value
