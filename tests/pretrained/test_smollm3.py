"""SmolLM3: files as the hub has them, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import family
from family.pretrained.layers import by_layer

sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))
pytest.importorskip("transformers")
import transformers
from cases import causal, llamas
from folders import REMOVED, change, config_of, refuses, rewrite, same, write

DEPTH = {"num_hidden_layers": 5}
ROTARY, NONE = "rotary", "none"


def smollm3(**options):
    return llamas.of("SmolLM3", causal.LLAMA, **options)()


def test_layout_of_version_4(tmp_path):
    theirs = write(smollm3(rope_parameters={"rope_type": "default", "rope_theta": 5e6}), tmp_path)
    change(tmp_path, rope_parameters=REMOVED, rope_theta=5e6, rope_scaling=None)
    change(tmp_path, pretraining_tp=2, tie_word_embeddings=REMOVED)
    assert same(causal, tmp_path, theirs).config.rotary_base == 5e6


def test_bare_stack_and_default_base(tmp_path):
    theirs = write(smollm3(), tmp_path)
    rewrite(tmp_path, lambda name: name.removeprefix("model."))
    change(tmp_path, architectures=["SmolLM3Model"], rope_parameters=REMOVED)
    assert same(causal, tmp_path, theirs).config.rotary_base == 2e6


@pytest.mark.parametrize(
    ("fields", "positions", "windows"),
    [
        ({}, [ROTARY] * 3 + [NONE, ROTARY], [None] * 5),
        ({"no_rope_layer_interval": 2}, [ROTARY, NONE] * 2 + [ROTARY], [None] * 5),
        ({"no_rope_layers": [0, 1, 1, 0, 1, 0]}, [NONE, ROTARY, ROTARY, NONE, ROTARY], [None] * 5),
        ({"no_rope_layers": [1] * 5}, [ROTARY] * 5, [None] * 5),
        ({"no_rope_layers": [0] * 5}, [NONE] * 5, [None] * 5),
        (llamas.NEAR, [ROTARY] * 3 + [NONE, ROTARY], [None] * 3 + [5, None]),
        (
            {**llamas.NEAR, "layer_types": ["sliding_attention", *["full_attention"] * 4]},
            [ROTARY] * 3 + [NONE, ROTARY],
            [5] + [None] * 4,
        ),
    ],
    ids=str,
)
def test_positions_and_windows_of_layers(tmp_path, fields, positions, windows):
    """As version 4 has them, without the lists that version 5 fills in; and written again."""
    write(smollm3(**DEPTH), tmp_path / "theirs")
    empty = {name: REMOVED for name in ("no_rope_layers", "layer_types")}
    change(tmp_path / "theirs", **{**empty, **fields})
    theirs = transformers.SmolLM3ForCausalLM.from_pretrained(tmp_path / "theirs")
    ours = same(causal, tmp_path / "theirs", theirs)
    assert by_layer(ours.config, "position") == positions
    assert by_layer(ours.config, "window") == windows
    family.save_pretrained(ours, tmp_path / "ours", format="smollm3")
    again = transformers.SmolLM3ForCausalLM.from_pretrained(tmp_path / "ours")
    assert same(causal, tmp_path / "ours", again).config == ours.config
    turning = [int(position == ROTARY) for position in positions]
    assert config_of(tmp_path / "ours")["no_rope_layers"] == turning


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"no_rope_layers": [1, 1]}, ["no_rope_layers=[1, 1]", "3 entries"]),
        ({"no_rope_layers": 3}, ["config.json"]),
        ({"no_rope_layers": None, "no_rope_layer_interval": 0}, ["config.json"]),
        ({"layer_types": ["chunked_attention"] * 3}, ["chunked_attention"]),
        ({"layer_types": ["sliding_attention"] * 3}, ["sliding_attention", "no window"]),
        ({"mlp_bias": True}, ["bias"]),
        ({"rope_scaling": {"type": "dynamic", "factor": 2}}, ["dynamic"]),
        ({"tie_word_embeddings": False}, ["no weight lm_head.weight"]),
    ],
    ids=str,
)
def test_refused(tmp_path, fields, words):
    write(smollm3(), tmp_path)
    change(tmp_path, **fields)
    refuses(tmp_path, *words)


def test_bases_that_differ_are_not_expressed(tmp_path):
    layers = [{"rotary_base": 100.0}, {}]
    model = family.llama(97, True, dim=32, depth=2, heads=4, layers=layers)
    with pytest.raises(ValueError, match=r"rotary_base=\[100.0, 10000.0\]"):
        family.save_pretrained(model, tmp_path / "model", format="smollm3")
