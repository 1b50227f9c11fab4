"""Weights of several kinds of numbers become one, as in transformers; quantised ones are refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import family
from family.pretrained.weights import INDEX, SINGLE

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import causal
from folders import REMOVED, change, message_of, refuses, weights_of, write

HALF = torch.bfloat16
DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture
def folder(tmp_path):
    write(causal.llama()(), tmp_path)
    return tmp_path


def mixed(folder, whole):
    """Weights in bfloat16, but those with one of these words in their names."""
    kinds = {n: torch.float32 if any(w in n for w in whole) else HALF for n in weights_of(folder)}
    weights = {n: value.to(kinds[n]) for n, value in weights_of(folder).items()}
    save_file(weights, folder / SINGLE, {"format": "pt"})
    return weights


@pytest.mark.parametrize("said", ["bfloat16", "float32", None])
@pytest.mark.parametrize("whole", [("norm", "lm_head"), ("embed_tokens",)])
def test_one_for_all_as_in_transformers(folder, whole, said):
    mixed(folder, whole)
    change(folder, dtype=REMOVED if said is None else said)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ours = family.from_pretrained(folder)
    assert {p.dtype for p in ours.parameters()} == {theirs.dtype}
    family.save_pretrained(ours, folder / "again", format="llama")
    for name, value in weights_of(folder / "again").items():
        assert torch.equal(value, theirs.state_dict()[name]), name
    ids = torch.arange(1, 6)[None]
    assert ours.generate(ids, max_new_tokens=3).shape == (1, 3)
    asked = family.from_pretrained(folder, dtype=torch.float16)
    assert {p.dtype for p in asked.parameters()} == {torch.float16}


def test_by_the_name_of_the_field_of_before(folder):
    change(folder, dtype=REMOVED, torch_dtype="float16")
    assert next(family.from_pretrained(folder).parameters()).dtype == torch.float16


def test_shards_and_pickled_weights(folder):
    """The first of all counts."""
    weights = mixed(folder, ("norm", "lm_head"))
    change(folder, dtype=REMOVED)
    (folder / SINGLE).unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    first = next(iter(weights.values())).dtype
    assert {p.dtype for p in family.from_pretrained(folder).parameters()} == {first}
    (folder / "pytorch_model.bin").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
    for file, those in parts.items():
        save_file({n: weights[n] for n in those}, folder / file, {"format": "pt"})
    places = {n: file for file, those in parts.items() for n in those}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert {p.dtype for p in family.from_pretrained(folder).parameters()} == {theirs.dtype}


def test_tied_weights_of_which_one_was_rounded(tmp_path):
    write(causal.llama(tie_word_embeddings=True)(), tmp_path)
    weights = weights_of(tmp_path)
    table = weights["model.embed_tokens.weight"]
    save_file({**weights, "lm_head.weight": table.to(HALF)}, tmp_path / SINGLE, {"format": "pt"})
    ours = family.from_pretrained(tmp_path)
    assert ours.head.weight is ours.embedding.tokens.weight
    assert torch.equal(ours.head.weight, table)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int16", "float8_e4m3fn"])
def test_quantised_weights(folder, monkeypatch, kind):
    monkeypatch.setattr("family.pretrained.sources.build_unfilled", None)  # nothing is built
    weights = weights_of(folder)
    weights[DOWN] = weights[DOWN].to(getattr(torch, kind))
    save_file(weights, folder / SINGLE, {"format": "pt"})
    refuses(folder, DOWN, kind, "quantised weights are not supported")
    assert kind in message_of(folder, dtype=torch.float32)
    (folder / SINGLE).unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    refuses(folder, DOWN, kind, "quantised weights are not supported")


def test_whole_numbers_in_place_of_weights(folder):
    weights = weights_of(folder)
    save_file({**weights, DOWN: weights[DOWN].long()}, folder / SINGLE, {"format": "pt"})
    refuses(folder, DOWN, "int64")


QUANTISED = {
    "gptq, 4 bits": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "awq, 4 bits": {"quant_method": "awq", "bits": 4, "zero_point": True},
    "bitsandbytes, 4 bits": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "bitsandbytes, 8 bits": {"load_in_8bit": True, "llm_int8_threshold": 6.0},
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "pack-quantized"},
}


@pytest.mark.parametrize("named", QUANTISED)
@pytest.mark.parametrize("weights", [True, False])
def test_a_config_that_says_so(folder, named, weights):
    """Also beside weights that are whole, and of those whose files have names of their own."""
    change(folder, quantization_config=QUANTISED[named])
    if not weights:
        (folder / SINGLE).rename(folder / "gptq_model-4bit-128g.safetensors")
    refuses(folder, f"config.json: quantization_config ({named}): quantised weights")


def test_parts_and_older_configs_say_so_too(folder):
    change(folder, compression_config={"quant_method": "compressed-tensors"})
    refuses(folder, "compression_config (compressed-tensors)")
    change(folder, compression_config=REMOVED, text_config={"quantization_config": {"bits": 3}})
    refuses(folder, "text_config.quantization_config (unknown, 3 bits)")
    change(folder, text_config=REMOVED, quantization_config=None)
    assert family.from_pretrained(folder)


def test_no_type_of_eight_bits_is_asked_for(folder):
    assert "16 bits or more" in message_of(folder, dtype=torch.float8_e4m3fn)


def test_in_a_format_that_is_named(folder):
    change(folder, quantization_config={"quant_method": "gptq"})
    with pytest.raises(ValueError, match="quantization_config"):
        family.from_pretrained(folder, format="llama")
