"""A run measures itself without changing itself, ends with its budget, and resumes to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from tasks.cli import main
from tasks.compare import counting
from tasks.compare.counting import count_of_batch
from tasks.compare.measure import Measure
from tasks.errors import NotFiniteError

FIT = [
    "fit",
    "--config=text_classification/shapes",
    "--trainer.val_check_interval=4",
    "--trainer.log_every_n_steps=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--data.examples=200",
    "--data.batch_size=8",
    *(f"--model.model.init_args.config.{option}" for option in ("dim=16", "depth=1", "heads=2")),
    "--model.model.init_args.config.ffn_dim=32",
    "--model.model.init_args.config.dropout=0.3",
    "--model.schedule=constant",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(name, *options, unit="steps", amount=10, steps=10):
    trainer = {
        "max_steps": steps,
        "callbacks": [
            {
                "class_path": "tasks.compare.measure.Measure",
                "init_args": {"unit": unit, "amount": amount},
            },
            {"class_path": "tasks.compare.measure.Outcomes"},
        ],
    }
    Path("measured.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    main([*FIT, "--config=measured.yaml", f"--run_folder={name}", *options])
    return json.loads(Path(name, "measure.json").read_text())


def weights(name):
    return torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def same(a, b):
    return all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items())


def test_what_was_spent_stands_at_each_point_of_the_curve():
    found = fit("run")
    assert (found["step"], found["examples"]) == (10, 80)
    assert found["tokens"] > 80
    points = [p for p in found["curve"] if "val/accuracy" in p]
    assert [p["step"] for p in points] == [4, 8, 10]  # the last state too
    assert [p["step"] for p in found["curve"] if "train/loss" in p] == [2, 4, 6, 8, 10]
    assert points[-1]["flops"] == pytest.approx(10 * found["flops_per_step"])
    assert found["flops_per_step"] > 6 * found["tokens"] / 10 * 16 * 16  # a layer's work, at least
    assert found["code"].startswith(("commit ", "packages "))
    assert found["memory_bytes"] > 1 << 20
    seconds = [p["seconds"] for p in found["curve"]]
    assert seconds == sorted(seconds)
    assert found["seconds"] >= seconds[-1]


@pytest.mark.slow
def test_counting_leaves_no_trace(monkeypatch):
    fit("counted")
    monkeypatch.setattr(counting, "counted_flops", lambda step: 1)
    fit("uncounted")
    assert same("counted", "uncounted")


def test_a_state_of_before_may_hold_more():
    measure = Measure()
    measure.load_state_dict({"seconds": 3.0, "flops": [2.0], "analytic": [2.0]})
    assert (measure.seconds, measure.flops) == (3.0, [2.0])
    assert "analytic" not in measure.state_dict()


def test_a_budget_of_tokens_ends_the_run():
    found = fit("run", unit="tokens", amount=600, steps=1000)
    assert found["step"] < 100
    assert found["tokens"] >= 600
    before = [p for p in found["curve"] if p["step"] < found["step"]]
    assert before[-1]["tokens"] < 600
    assert found["curve"][-1]["step"] == found["step"]
    assert "val/accuracy" in found["curve"][-1]


def test_an_interrupted_run_goes_on_to_the_same_end():
    whole = fit("whole")
    fit("half", steps=8, amount=8)
    rest = fit("rest", "--ckpt_path=half")
    assert same("whole", "rest")
    for name in ("tokens", "flops", "step"):
        assert whole[name] == rest[name]
    ours, theirs = ([p.get("val/loss") for p in one["curve"]] for one in (whole, rest))
    assert ours == theirs


@pytest.mark.slow
def test_outcomes_agree_with_the_score():
    fit("run")
    tested = ["test", *FIT[1:], "--config=measured.yaml", "--ckpt_path=run"]
    main([*tested, "--run_folder=run/test"])
    rows = [json.loads(line) for line in Path("run/test/outcomes.jsonl").read_text().splitlines()]
    metrics = json.loads(Path("run/test/metrics-test.json").read_text())["metrics"]
    assert [row["line"] for row in rows] == list(range(len(rows)))
    assert all(row["correct"] == (row["made"] == row["true"]) for row in rows)
    accuracy = sum(row["correct"] for row in rows) / len(rows)
    assert accuracy == pytest.approx(metrics["test/accuracy"])


def test_padding_is_no_token():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    labels = torch.tensor([[1, 2, -100, -100], [3, -100, -100, -100]])
    pair = {"source": mask.long(), "source_mask": mask, "labels": labels}
    assert {k: int(v) for k, v in count_of_batch(pair).items()} == {
        "examples": 2,
        "tokens": 6,
        "pictures": 0,
    }
    assert int(count_of_batch({"input_ids": mask.long(), "mask": mask})["tokens"]) == 3
    assert count_of_batch({"input_ids": mask.long()})["tokens"] == 6
    assert count_of_batch({"pixel_values": torch.zeros(4, 3, 2, 2)})["pictures"] == 4


def test_numbers_that_are_not_finite_are_what_came_of_a_run(monkeypatch):
    """Other failures say nothing of the model."""
    measure, written = Measure(), []
    monkeypatch.setattr(measure, "_write", lambda *_: written.append(measure.not_finite))
    measure.on_exception(None, None, NotFiniteError("loss is nan at step 3"))
    measure.on_exception(None, None, RuntimeError("out of memory"))
    assert written == ["loss is nan at step 3"]
