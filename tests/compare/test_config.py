"""A comparison's file is read as it was meant, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.cli.configs import find_config
from tasks.compare.config import (
    Budget,
    differences,
    from_arguments,
    lay_over,
    read_comparison,
    undotted,
)
from tasks.errors import UserError

GOOD = {"base": "gpt/shapes", "variants": {"a": {}, "b": {}}, "budget": {"steps": 5}}
DIM = "model.init_args.model.init_args.config.dim"


def read(folder: Path, overrides=None, **changes):
    file = folder / "some.yaml"
    file.write_text(yaml.safe_dump(GOOD | changes))
    return read_comparison(file, find_config, overrides)


def test_another_class_takes_nothing_over():
    base = {"class_path": "A", "init_args": {"x": 1}, "y": {"z": 1}}
    assert lay_over(base, {"init_args": {"w": 2}})["init_args"] == {"x": 1, "w": 2}
    assert lay_over(base, {"class_path": "B"}) == {"class_path": "B"}
    assert base["init_args"] == {"x": 1}


def test_dots_are_levels():
    assert undotted({"a.b": 1, "a": {"c.d": 2}}) == {"a": {"b": 1, "c": {"d": 2}}}


def test_options_of_the_command_hold_for_all_variants(tmp_path):
    options = ["--data.root=x", "--trainer.devices", "2", "--model.init_args.lr=1e-3"]
    assert from_arguments(options) == {
        "data": {"init_args": {"root": "x"}},
        "trainer": {"devices": 2},
        "model": {"init_args": {"lr": "1e-3"}},
    }
    variants = read(tmp_path, options).variants
    assert all(v["data"]["init_args"]["root"] == "x" for v in variants.values())
    with pytest.raises(UserError, match="--data.root is no option with a value"):
        from_arguments(["--data.root"])


def test_a_variant_is_the_base_with_its_layers(tmp_path):
    layers = ["language_modeling/tinyshakespeare_lstm", {"model.init_args.lr": 1}]
    found = read(tmp_path, variants={"gpt": {DIM: 64}, "lstm": layers})
    gpt, lstm = found.variants["gpt"]["model"], found.variants["lstm"]["model"]
    assert gpt["init_args"]["model"]["init_args"]["config"]["dim"] == 64
    assert gpt["init_args"]["model"]["init_args"]["config"]["depth"] == 4  # of the base
    assert lstm["init_args"]["model"]["class_path"] == "family.LSTMLanguageModel"
    assert "config" not in lstm["init_args"]["model"]["init_args"]
    assert lstm["init_args"]["lr"] == 1


def test_only_fields_that_differ_are_shown():
    configs = {"a": {"x": {"y": 1, "z": 2}}, "b": {"x": {"y": 1, "z": 3}, "w": 4}}
    assert differences(configs) == {"x.z": {"a": 2, "b": 3}, "w": {"a": None, "b": 4}}


def test_defaults(tmp_path):
    found = read(tmp_path, budget={"flops": "1e6"}, seeds={"a": [7]})
    assert found.budget == Budget("flops", 1e6)
    assert found.seeds == {"a": [7], "b": [0, 1, 2]}
    assert found.learning_rates == {"a": [], "b": []}
    assert found.name == "some"


MATCH = {"field": DIM, "to": "a"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variant": {}}, "unknown 'variant'. Did you mean 'variants'?"),
        ({"base": "gpt/shape"}, "--config gpt/shape: no such file"),
        ({"variants": {}}, "variants must be names"),
        ({"variants": {"a/b": {}}}, "'a/b' names a folder"),
        ({"variants": {"a": [3]}}, "variants.a lays 3 over the base"),
        ({"budget": {"steps": 5, "tokens": 5}}, "exactly one of .*; it has steps and tokens"),
        ({"budget": {}}, "exactly one of .*; it has none"),
        ({"budget": {"step": 5}}, "budget: unknown 'step'. Did you mean 'steps'?"),
        ({"budget": {"steps": 0}}, "budget.steps must be above 0, not 0"),
        ({"budget": {"steps": "many"}}, "budget.steps must be a number, not 'many'"),
        ({"budget": {"steps": 1, "match_parameters": {"to": "a"}}}, "needs field and to"),
        (
            {"budget": {"steps": 1, "match_parameters": MATCH | {"to": "aa"}}},
            "match_parameters.to: unknown 'aa'. Did you mean 'a'?",
        ),
        (
            {"budget": {"steps": 1, "match_parameters": MATCH | {"multiple_of": 0}}},
            "multiple_of must be a whole number of at least 1, not 0",
        ),
        ({"seeds": []}, "seeds must be a list of numbers, not \\[\\]"),
        ({"seeds": [1, 1]}, "seeds has the same number twice"),
        ({"seeds": {"c": [1]}}, "seeds: unknown 'c'. There are: a, b."),
        ({"learning_rates": [-1]}, "learning_rates must be at least 0"),
        ({"metric": "val/loss"}, "metric needs a name and a mode"),
        ({"metric": {"name": "val/loss", "mode": "least"}}, "must be max or min, not 'least'"),
        ({"metric": {"name": "loss", "mode": "min"}}, "must begin with val/ or test/"),
        ({"validations": 0}, "validations must be a whole number of at least 1, not 0"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as error:
        read(tmp_path, **changes)
    assert "\n" not in str(error.value)
