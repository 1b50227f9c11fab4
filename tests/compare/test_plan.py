"""A plan is checked whole before anything runs; parameters are matched; steps come of the budget."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from tasks.cli.configs import find_config
from tasks.compare.config import Budget, get, read_comparison
from tasks.compare.plan import CLOSE, Plan, Variant, make_plan, run_config
from tasks.compare.runs import first_runs
from tasks.errors import UserError

CONFIG = "model.init_args.model.init_args.config"
SMALL = {CONFIG: {"dim": 32, "depth": 1, "heads": 2, "ffn_dim": 64}}


def planned(folder, **changes):
    content = {"base": "gpt/shapes", "variants": {"a": SMALL}, "budget": {"steps": 6}} | changes
    file = folder / "some.yaml"
    file.write_text(yaml.safe_dump(content))
    return make_plan(read_comparison(file, find_config))


def test_parameters_are_matched_within_two_percent(tmp_path):
    lstm = ["language_modeling/tinyshakespeare_lstm", {"model.init_args.model.init_args.dim": 32}]
    field = {"lstm": "model.init_args.model.init_args.dim"}
    match = {"field": field, "to": "a", "multiple_of": 1}
    plan = planned(
        tmp_path,
        variants={"a": SMALL, "lstm": lstm},
        budget={"steps": 6, "match_parameters": match},
    )
    a, lstm = plan.variants["a"], plan.variants["lstm"]
    assert abs(lstm.parameters / a.parameters - 1) <= CLOSE
    assert lstm.matched == {field["lstm"]: get(lstm.config, field["lstm"])}
    assert a.matched == {}
    assert plan.metric == plan.monitor == ("val/loss", "min")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variants": {"x": {CONFIG + ".dmi": 8}}}, "variants.x: .*'dmi'.*Did you mean 'dim'?"),
        ({"variants": {"x": {"model.init_args.optimizer": "adamm"}}}, "mean 'adam"),
        ({"variants": {"x": {CONFIG + ".heads": 5}}}, "variants.x: .*heads"),
        ({"variants": {"x": {"data.init_args.root": "nowhere"}}}, "variants.x: nowhere"),
        ({"metric": {"name": "test/loss", "mode": "min"}}, "metric.name=test/loss needs test"),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence(tmp_path, changes, said):
    with pytest.raises(UserError, match=said) as error:
        planned(tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_a_missing_test_split_shows_before_anything_is_trained(tmp_path):
    (tmp_path / "text.txt").write_text("to be or not to be\n" * 200)
    variants = {"x": SMALL | {"data.init_args.root": str(tmp_path / "text.txt")}}
    assert planned(tmp_path, variants=variants).metric == ("val/loss", "min")
    with pytest.raises(UserError, match="variants.x: .*text.txt has no test.txt"):
        planned(tmp_path, variants=variants, test=True)


@pytest.mark.slow
def test_what_cannot_be_matched_is_refused(tmp_path):
    variants = {"a": SMALL, "b": {CONFIG: SMALL[CONFIG] | {"depth": 2}}}
    for field, multiple, said in (
        (f"{CONFIG}.fn_dim", 8, "variants.b has no number .*Did you mean '.*ffn_dim'?"),
        (f"{CONFIG}.ffn_dim", 512, "no multiple of 512 comes within 2 %"),
    ):
        match = {"field": field, "to": "a", "multiple_of": multiple}
        with pytest.raises(UserError, match=said):
            planned(tmp_path, variants=variants, budget={"steps": 1, "match_parameters": match})


CONFIG_OF_A = {
    "model": {"init_args": {"lr": 1.0}},
    "trainer": {"accumulate_grad_batches": 2, "callbacks": [{"class_path": "X"}]},
}


@pytest.fixture
def plan():
    variant = Variant("a", CONFIG_OF_A, [0.5], [0, 1], 10, {})
    loss = ("val/loss", "min")
    return Plan("some", {"a": variant}, Budget("tokens", 1e5), loss, loss, False, 3)


def test_a_run_gets_budget_rate_and_validations_and_keeps_its_own(plan):
    config = run_config(plan, "a", 0.5, steps=10)
    assert config["model"]["init_args"]["lr"] == 0.5
    trainer = config["trainer"]
    assert (trainer["max_steps"], trainer["max_epochs"]) == (10, None)
    assert trainer["val_check_interval"] == 7  # of 20 batches
    assert trainer["callbacks"][0] == {"class_path": "X"}
    assert trainer["callbacks"][1]["init_args"] == {"unit": "tokens", "amount": 1e5}
    assert CONFIG_OF_A["trainer"]["callbacks"] == [{"class_path": "X"}]


def test_a_plan_is_read_as_it_was_saved_and_no_other_takes_its_folder(plan, tmp_path):
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan
    plan.save(tmp_path)
    with pytest.raises(UserError, match="budget.amount was 100000.0 and is 5.0 now"):
        replace(plan, budget=Budget("tokens", 5.0)).save(tmp_path)
    with pytest.raises(UserError, match="holds no comparison"):
        Plan.load(tmp_path / "elsewhere")


def test_rates_are_chosen_by_a_seed_of_their_own(tmp_path):
    variants = {"a": SMALL, "b": SMALL}
    seeds, rates = {"a": [0, 1], "b": [5]}, {"a": [1e-3, 1e-2]}
    made = planned(tmp_path, variants=variants, seeds=seeds, learning_rates=rates)
    a, b = made.variants["a"], made.variants["b"]
    assert (a.choosing_seed, a.first_seed) == (6, 6)  # nobody's
    assert (b.choosing_seed, b.first_seed) == (None, 5)  # nothing to choose
    runs = [run.name for run in first_runs(made, tmp_path)]
    assert runs == ["a/lr-0.001/seed-6", "a/lr-0.01/seed-6", "b/lr-0.003/seed-5"]


def test_a_plan_of_before_goes_on_as_it_began(plan, tmp_path):
    """There the first seed chose, and a plan said nothing of it."""
    two = replace(plan.variants["a"], learning_rates=[0.5, 0.1])
    before = replace(plan, variants={"a": two})
    before.save(tmp_path)
    written = json.loads((tmp_path / "plan.json").read_text("utf-8"))
    del written["variants"]["a"]["choosing_seed"]
    (tmp_path / "plan.json").write_text(json.dumps(written))
    now = replace(plan, variants={"a": replace(two, choosing_seed=2)})
    assert now.save(tmp_path) == Plan.load(tmp_path) == before
    assert before.variants["a"].first_seed == 0
    assert now.save(tmp_path / "new") == Plan.load(tmp_path / "new") == now
