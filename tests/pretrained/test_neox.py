"""GPT-NeoX and Pythia: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
from cases import causal
from folders import REMOVED, change, config_of, refuses, rewrite, same, write


def test_pythia_as_published(tmp_path):
    """Buffers beside the weights, and the names that rotary positions had."""
    theirs = write(causal.neox(True)(), tmp_path)
    change(tmp_path, rope_parameters=REMOVED, rotary_pct=0.25, rotary_emb_base=10_000)
    layer = "gpt_neox.layers.0.attention."
    buffers = {
        f"{layer}bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
        f"{layer}masked_bias": torch.tensor(-1e9),
        f"{layer}rotary_emb.inv_freq": torch.ones(1),
    }
    rewrite(tmp_path, **buffers)
    ours = same(causal, tmp_path, theirs)
    assert ours.config.parallel and ours.config.rotary_dim == 2


def test_bare_stack(tmp_path):
    theirs = write(causal.neox(True, tie_word_embeddings=True)(), tmp_path)
    rewrite(tmp_path, lambda name: name.removeprefix("gpt_neox."))
    change(tmp_path, architectures=["GPTNeoXModel"])
    same(causal, tmp_path, theirs)


def test_rows_of_queries_keys_and_values_are_sorted(tmp_path):
    theirs = write(causal.neox(True)(), tmp_path)
    theirs = theirs.gpt_neox.layers[0].attention.query_key_value.weight.view(4, 3, 8, 32)
    qkv = family.from_pretrained(tmp_path).transformer.blocks[0].self_attention.sublayer.qkv
    torch.testing.assert_close(qkv.weight[32:64], theirs[:, 1].reshape(32, 32))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"attention_bias": False}, ["attention_bias=False"]),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2}}, ["dynamic"]),
        ({"rope_parameters": {"partial_rotary_factor": 0.4}}, ["rotary_dim", "3"]),
        ({"rope_parameters": {"partial_rotary_factor": "half"}}, ["config.json"]),
        ({"num_attention_heads": 0}, ["config.json"]),
        ({"hidden_size": "32"}, ["config.json"]),
        ({"use_parallel_residual": "yes"}, ["parallel", "'yes'"]),
        ({"num_hidden_layers": 1}, ["gpt_neox.layers.1", "no place"]),
    ],
    ids=str,
)
def test_refused(tmp_path, fields, words):
    write(causal.neox(True)(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


def test_both_layouts_are_written(tmp_path):
    theirs = write(causal.neox(False, rotary_pct=0.5)(), tmp_path / "theirs")
    ours = same(causal, tmp_path / "theirs", theirs)
    family.save_pretrained(ours, tmp_path / "ours", format="gpt_neox")
    config = config_of(tmp_path / "ours")
    assert config["rotary_pct"] == config["rope_parameters"]["partial_rotary_factor"] == 0.5
    assert config["use_parallel_residual"] is False


def test_llama_is_not_expressed(tmp_path):
    model = family.llama(97, dim=32, depth=2, heads=4)
    with pytest.raises(ValueError, match="gated"):
        family.save_pretrained(model, tmp_path / "model", format="gpt_neox")
