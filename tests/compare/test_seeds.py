"""What came of every seed is said, and a verdict is one of all seeds or none."""

from __future__ import annotations

import json
import math

import pytest

from tasks.compare import report
from tasks.compare.config import Budget
from tasks.compare.gather import gather
from tasks.compare.measure import write_json
from tasks.compare.plan import Plan, Variant
from tasks.compare.runs import Run, best_rate


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """No plots: they take most of a report's time."""
    monkeypatch.setattr(report, "draw", lambda results: {})


GOOD = (0.90, 0.92, 0.91, 0.93, 0.89)


def plan(seeds=3, rates=(0.1,), choosing=None, budget=("tokens", 1000.0)):
    variants = {
        name: Variant(name, {}, list(rates), list(range(seeds)), 10, {}, choosing) for name in "ab"
    }
    monitor = ("val/accuracy", "max")
    return Plan("some", variants, Budget(*budget), monitor, monitor, False, None)


def ran(folder, name, value, *, rate=0.1, tokens=1000, end=(), **record):
    """What a run leaves behind that reached a value, and ended its curve so."""
    run = Run(folder, *name[:1], rate, int(name[1:]))
    curve = [{"step": 5, "val/accuracy": value, "val/loss": 1.0}, *end]
    write_json(run.place / "measure.json", {"step": 10, "tokens": tokens, "curve": curve, **record})
    write_json(run.place / "metrics-fit.json", {"metrics": {}, "signatures": {}})
    return run


def failed(folder, name, why):
    run = Run(folder, name[0], 0.1, int(name[1:]))
    run.error.parent.mkdir(parents=True, exist_ok=True)
    run.error.write_text(why)
    return run


def both(folder, a, b):
    """Runs of ``a`` and ``b``, a value a seed."""
    for name, values in {"a": a, "b": b}.items():
        for seed, value in enumerate(values):
            ran(folder, f"{name}{seed}", value)


def reports(folder, of):
    results = gather(of, folder)
    report.write_report(results, folder)
    pages = [(folder / f"report.{kind}").read_text("utf-8") for kind in ("html", "md")]
    return results, pages


def test_survivors_alone_win_nothing(tmp_path):
    """The seeds that remain are far better than all of the other side's."""
    both(tmp_path, [0.50, 0.51, 0.52], [0.90, math.nan, 0.92])
    results, pages = reports(tmp_path, plan())
    (pair,) = results["pairs"]
    assert pair["verdict"].startswith(
        "a and b: no verdict, since b diverged with seed 1 (over seeds"
    )
    assert not pair["significant"]
    assert (pair["difference"], pair["bootstrap"]) == (None, None)
    assert results["variants"]["b"]["seeds"]["finished"] == [0, 2]
    for page in pages:
        assert "no verdict, since b diverged with seed 1" in page
        assert "0: 0.9, 1: diverged, 2: 0.92" in page
        assert "of seeds 0 and 2 alone" in page
        assert "b/lr-0.1/seed-1 diverged:" in page
        assert "better" not in page.split("better)", 1)[1].split("Over seeds")[0]


def test_who_diverges_often_has_lost(tmp_path):
    both(tmp_path, GOOD, [0.95, *[math.inf] * 4])
    (pair,) = gather(plan(5), tmp_path)["pairs"]
    # Ranks 5, 6, 7, 8, 9 of one side: one seed of the other did best of all.
    assert pair["verdict"].startswith(
        "a and b: no verdict, since b diverged with seeds 1, 2, 3 and 4"
    )
    both(tmp_path, GOOD, [0.85, *[math.inf] * 4])
    results, pages = reports(tmp_path, plan(5))
    (pair,) = results["pairs"]
    said = "a is better than b, which diverged with seeds 1, 2, 3 and 4"
    assert pair["verdict"].startswith(said)
    assert (pair["significant"], pair["better"]) == (True, "a")
    assert "p = 0.008" in pair["verdict"]
    assert all(said in page for page in pages)
    assert "| b | 0.85 (one seed), of seed 0 alone | worse |" in pages[1]


def test_who_diverged_is_never_better(tmp_path):
    both(tmp_path, [0.1 * x for x in GOOD], [*GOOD[:4], math.nan])
    (pair,) = gather(plan(5), tmp_path)["pairs"]
    assert "no verdict" in pair["verdict"]
    both(tmp_path, [math.nan] * 5, [*GOOD[:4], math.nan])
    (pair,) = gather(plan(5), tmp_path)["pairs"]
    assert (
        "since a diverged with seeds 0, 1, 2, 3 and 4 and b diverged with seed 4" in pair["verdict"]
    )
    assert not pair["significant"]


def test_a_failed_or_missing_seed_leaves_no_verdict(tmp_path):
    both(tmp_path, [0.50, 0.51, 0.52], [0.90, 0.91])
    (pair,) = gather(plan(), tmp_path)["pairs"]
    assert pair["verdict"] == "a and b: no verdict, since b is not finished with seed 2."
    failed(tmp_path, "b2", "out of memory")
    results, pages = reports(tmp_path, plan())
    (pair,) = results["pairs"]
    assert pair["verdict"] == "a and b: no verdict, since b failed with seed 2."
    assert pair["p_seeds"] is None
    assert all("0: 0.9, 1: 0.91, 2: failed" in page for page in pages)


def test_a_run_that_diverged_after_its_best_has_diverged(tmp_path):
    bad = {"step": 10, "val/accuracy": 0.1, "val/loss": math.nan}
    assert ran(tmp_path, "a0", 0.9, end=[bad]).diverged("val/accuracy")
    assert ran(tmp_path, "a0", 0.9, end=[bad, {**bad, "val/loss": 1.0}]).diverged("x") is False
    batch = {"step": 10, "train/loss": math.inf}
    assert not ran(tmp_path, "a0", 0.9, end=[batch]).diverged("val/accuracy")
    stopped = failed(tmp_path, "b0", "loss is nan at step 3")
    assert not stopped.diverged("val/accuracy")  # nothing is known of it but its words
    ran(tmp_path, "b0", 0.9, not_finite="loss is nan at step 3")
    (stopped.place / "metrics-fit.json").unlink()
    assert stopped.diverged("val/accuracy")
    found = gather(plan(1), tmp_path)["variants"]["b"]
    assert found["divergences"] == {"b/lr-0.1/seed-0": "loss is nan at step 3"}
    assert (found["failures"], found["seeds"]["diverged"]) == ({}, [0])


def test_the_seed_that_chose_a_rate_is_no_result(tmp_path):
    ours = plan(3, (0.1, 0.2), choosing=3)
    for rate, value in ((0.1, 0.99), (0.2, 0.5)):
        for name in "ab":
            ran(tmp_path, f"{name}3", value, rate=rate)
    assert best_rate(ours, tmp_path, "a") == 0.1
    both(tmp_path, *[[0.90, 0.91, 0.92]] * 2)
    results, pages = reports(tmp_path, ours)
    assert results["variants"]["a"]["values"] == [0.90, 0.91, 0.92]
    for page in pages:
        assert "val/accuracy with seed 3, by which each variant&#39;s" in page.replace("'", "&#39;")
        assert "which is in no mean" in page
    # In a plan of before, the first of the seeds chose: it is said.
    for name in "ab":
        ran(tmp_path, f"{name}0", 0.5, rate=0.2)
    _, pages = reports(tmp_path, plan(3, (0.1, 0.2)))
    assert all("The first seed counts in the mean as well" in page for page in pages)


def test_a_rate_that_diverges_is_not_chosen(tmp_path):
    ours = plan(2, (0.1, 0.2), choosing=2)
    bad = [{"step": 10, "val/accuracy": 0.1, "val/loss": math.nan}]
    for name in "ab":
        ran(tmp_path, f"{name}2", 0.5)
        ran(tmp_path, f"{name}2", 0.9, rate=0.2, end=bad if name == "a" else ())
    assert (best_rate(ours, tmp_path, "a"), best_rate(ours, tmp_path, "b")) == (0.1, 0.2)
    ran(tmp_path, "a2", 0.5, end=bad)
    for seed in (0, 1):
        ran(tmp_path, f"b{seed}", 0.9, rate=0.2)
    (pair,) = reports(tmp_path, ours)[0]["pairs"]
    assert (
        pair["verdict"] == "a and b: no verdict, since a found no learning rate with seeds 0 and 1."
    )


@pytest.mark.parametrize("unit", ["tokens", "flops", "seconds", "steps"])
def test_what_each_run_spent_of_its_budget_is_said(tmp_path, unit):
    for name in "ab":
        for seed, spent in enumerate((1000, 1010, 800 if name == "b" else 1000)):
            ran(tmp_path, f"{name}{seed}", 0.9, **{"step" if unit == "steps" else unit: spent})
    results, pages = reports(tmp_path, plan(budget=(unit, 1000.0)))
    assert [run["spent"] for run in results["variants"]["b"]["runs"]] == [1.0, 1.01, 0.8]
    for page in pages:
        assert "of its budget, each seed" in page
        assert "100 %, 101 %, 80 %" in page
        assert "b/lr-0.1/seed-2 spent 80 % of 1,000" in page
    json.dumps(results, allow_nan=False)
