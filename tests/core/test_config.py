"""What a config refuses, fills in, and carries over."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from family import Transformer, TransformerConfig
from family.core.rotary import RotaryScaling

ROTARY = {"position": "rotary", "dim": 64, "heads": 4}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dim": 10, "heads": 3}, "heads=3 does not divide dim=10"),
        ({"heads": 4, "dim": 16, "kv_heads": 3}, "kv_heads=3"),
        ({"activation": "gleu"}, "gleu.*Did you mean"),
        ({"norm": "layer"}, "layernorm"),
        ({"position": "sinusoidal", "dim": 15, "heads": 1}, "even dim, not 15"),
        ({"position": "relative", "relative_buckets": 3}, "relative_buckets=3"),
        ({"position": "relative", "relative_max_distance": 8}, "relative_max_distance=8"),
        ({"dropout": 1.5}, "dropout must be in \\[0, 1\\), not 1.5"),
        ({"parallel": True, "norm_order": "post"}, "parallel=True needs.*'post'"),
        ({"parallel": True, "cross_attention": True}, "parallel=True needs.*cross_attention"),
        ({"mixer": "atention"}, "mixer='atention' is unknown.*Did you mean 'attention'"),
        ({"feedforward": "expert"}, "feedforward='expert' is unknown.*Did you mean 'experts'"),
        (
            {"feedforward": "experts", "experts": 2, "experts_per_token": 3},
            "experts_per_token=3 is over experts=2",
        ),
        ({"condition_dim": 4, "norm_order": "post"}, "condition_dim=4 .* not 'post'"),
        ({"qk_norm": "rms"}, "qk_norm='rms' is unknown.*Did you mean 'rmsnorm'"),
        ({"depth": 1, "layers": ({}, {})}, "layers has 2 entries, over depth=1"),
        ({"layers": ({"windw": 4},)}, "layers\\[0\\] has the unknown field 'windw'"),
        ({"layers": ({}, {"dim": 4})}, "layers\\[1\\]: dim=4 is for the whole stack"),
        ({"layers": ({"position": "rotary"},)}, "layers\\[0\\]: position='rotary' is for the"),
        ({"layers": ({"window": 0},)}, "layers\\[0\\]: window must be at least 1, not 0"),
        ({"layers": 3}, "layers=3 must be a list"),
        ({**ROTARY, "rotary_dim": 20}, "rotary_dim=20 is over head_dim=16"),
        ({**ROTARY, "rotary_dim": 5}, "need a rotary_dim that divides by 2, not 5"),
        ({**ROTARY, "rotary_dim": 6, "rotary_axes": 2}, "need a rotary_dim that divides by 4"),
        ({**ROTARY, "head_dim": 15}, "need a head_dim that divides by 2, not 15"),
        ({**ROTARY, "rotary_base": 0}, "rotary_base must be over 0, not 0"),
        ({**ROTARY, "rotary_scaling": 0.0}, "rotary_scaling=0.0 needs"),
        ({**ROTARY, "rotary_scaling": (8, 4, 1, 8192)}, "low=4 must be under high=1"),
        ({**ROTARY, "rotary_scaling": (8, 1, 4, 0)}, "tokens=0 must be a number over 0"),
        ({**ROTARY, "rotary_scaling": (8, 1, 4)}, "must be a number or a RotaryScaling or None"),
        ({**ROTARY, "rotary_scaling": "llama3"}, "not 'llama3'"),
        ({**ROTARY, "rotary_scaling": (8, 1, 4, -1)}, "tokens=-1 must be a number over 0"),
        ({**ROTARY, "rotary_scaling": {"kind": "ntk"}}, "kind='ntk' is unknown"),
        ({**ROTARY, "rotary_scaling": {"kind": "yarn", "beta": 1}}, "unknown field 'beta'"),
        (
            {**ROTARY, "rotary_scaling": {"kind": "longrope", "tokens": 8}},
            "short must be 8 numbers",
        ),
    ],
)
def test_impossible_configs_are_refused_in_one_sentence(fields, words):
    with pytest.raises(ValueError, match=words) as error:
        TransformerConfig(**fields)
    assert str(error.value).endswith(("one of: layernorm, rmsnorm.", ".", "?"))
    assert "\n" not in str(error.value)


def test_only_relative_positions_have_no_longest_text():
    for position in ("none", "sinusoidal", "timing", "learned", "rotary", "alibi"):
        assert TransformerConfig(position=position, max_tokens=9).longest == 9
    assert TransformerConfig(position="relative", max_tokens=9).longest == math.inf


COUNTS = [
    "dim", "depth", "heads", "kv_heads", "head_dim", "ffn_dim", "context_dim", "max_tokens", "window",
    "rotary_axes", "rotary_dim", "relative_buckets", "relative_max_distance", "experts",
    "experts_per_token", "shared_experts", "condition_dim",
]  # fmt: skip
NUMBERS = [
    "norm_eps", "rotary_base", "rotary_scaling", "attention_scale", "layer_scale", "init_std",
    "dropout", "attention_dropout", "ffn_dropout", "drop_path", "score_cap",
]  # fmt: skip
SWITCHES = [
    "gated", "bias", "qkv_bias", "final_norm", "parallel", "causal", "cross_attention", "out_bias",
    "key_bias", "norm_bias", "mixer_norm", "qk_norm_whole", "normalize_routing",
    "activation_checkpointing",
]  # fmt: skip
NAMES = ["activation", "norm", "norm_order", "position", "mixer", "feedforward"]
OTHERS = ["layers", "qk_norm"]  # tested by themselves


def test_every_field_is_of_a_known_kind():
    fields = {field.name for field in dataclasses.fields(TransformerConfig)}
    assert fields == {*COUNTS, *NUMBERS, *SWITCHES, *NAMES, *OTHERS}


@pytest.mark.parametrize("name", [*COUNTS, *NUMBERS, *SWITCHES, *NAMES])
def test_a_value_of_a_wrong_type_is_named(name):
    wrong = ["yes", [], {}, (1, 2), b"x", object()]
    if name in COUNTS:
        wrong += [2.5, 2.0, True, "8", math.nan]
        words = "a whole number"
    elif name in NUMBERS:
        wrong += [False, "0.1", math.nan, math.inf, -math.inf, 10**400]
        words = "a number"
    elif name in SWITCHES:
        wrong += [0, 1, 1.0, "true"]
        words = "true or false"
    else:
        wrong = [0, True, None, ["relu"], {}]
        words = "a name"
    for value in wrong:
        with pytest.raises(ValueError, match=f"^{name} must be {words}.*, not .*\\.$") as error:
            TransformerConfig(**{name: value})
        assert len(str(error.value)) < 150


@pytest.mark.parametrize("name", [*COUNTS, *NUMBERS])
def test_a_number_out_of_range_is_named(name):
    least, value = (1, 0) if name in COUNTS else (0, -0.5)
    with pytest.raises(ValueError, match=f"^{name} must be at least {least}, not {value}\\.$"):
        TransformerConfig(**{name: value})


def test_a_long_value_is_not_printed_in_full():
    with pytest.raises(ValueError) as error:
        TransformerConfig(dim="x" * 10_000)
    assert len(str(error.value)) < 100


def test_whole_numbers_will_do_as_floats():
    config = TransformerConfig(**ROTARY, rotary_base=500_000, dropout=0, norm_eps=0, layer_scale=1)
    assert Transformer(config)(torch.randn(2, 3, 64)).isfinite().all()


def test_customary_values_are_filled_in():
    config = TransformerConfig(dim=64, heads=4, bias=False)
    assert (config.head_dim, config.kv_heads, config.ffn_dim, config.context_dim) == (
        16,
        4,
        256,
        64,
    )
    assert (config.rotary_dim, config.qkv_bias, config.final_norm) == (16, False, True)
    assert TransformerConfig(dim=10, heads=4, head_dim=8).rotary_dim == 8


def test_config_diff_and_replace():
    config = TransformerConfig(dim=16, heads=4)
    assert config.diff(config.replace(causal=True)) == {"causal": (False, True)}
    assert config.replace(dim=32).ffn_dim == 128


def test_replace_keeps_what_was_chosen_and_derives_the_rest_anew():
    config = TransformerConfig(**ROTARY)
    assert config.replace(dim=128) == TransformerConfig(**{**ROTARY, "dim": 128})
    assert config.replace(head_dim=8).rotary_dim == 8
    assert config.replace(bias=False).qkv_bias is False
    assert config.replace(norm_order="post").final_norm is False
    chosen = config.replace(kv_heads=2, rotary_dim=4, ffn_dim=80, qkv_bias=False, context_dim=24)
    wider = chosen.replace(dim=128, heads=8)
    assert wider.head_dim == 16
    assert (wider.kv_heads, wider.rotary_dim, wider.ffn_dim, wider.context_dim) == (2, 4, 80, 24)
    assert wider.replace(bias=True).qkv_bias is False


def test_a_config_survives_json():
    scaling = RotaryScaling("longrope", 2.0, 64, magnitude=1.1, short=(1,) * 8, long=(2,) * 8)
    layers = ({"window": 5, "rotary_base": 1e4}, {"rotary_scaling": scaling}, {"position": "none"})
    config = TransformerConfig(**ROTARY, causal=True, rotary_scaling=scaling, layers=layers)
    again = TransformerConfig(**json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config
    assert again.rotary_scaling == scaling and hash(again) == hash(config)
    assert again.at(1) == config.at(1)


def test_older_configs_are_understood():
    older = TransformerConfig(**ROTARY, qk_norm=True, rotary_scaling=[8.0, 1.0, 4.0, 8192])
    assert older.qk_norm == "rmsnorm" and TransformerConfig(qk_norm=False).qk_norm is None
    assert older.rotary_scaling == RotaryScaling.llama3(8.0, 1.0, 4.0, 8192)


def test_layers_are_cycled_over_the_depth():
    window = {"window": 4, "rotary_base": 100.0}
    config = TransformerConfig(**ROTARY, depth=8, causal=True, layers=(window, window, {}))
    assert [config.at(i).window for i in range(8)] == [4, 4, None, 4, 4, None, 4, 4]
    assert config.at(1).rotary_base == 100 and config.at(2) == config.replace(layers=())
    assert config.at(0).layers == ()
