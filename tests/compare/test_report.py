"""The report says what was found, in a page that needs nothing but itself."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tasks.compare.config import Budget
from tasks.compare.gather import gather
from tasks.compare.measure import write_json
from tasks.compare.plan import Plan, Variant
from tasks.compare.plots import curves
from tasks.compare.report import figure, signed, within, write_report
from tasks.compare.runs import Run, best_rate

SCORES = {"good": {0: 0.90, 1: 0.92, 2: 0.91}, "bad": {0: 0.50, 1: 0.55, 2: 0.52}}


def variant(name, dim, rates=(0.1,)):
    return Variant(name, {"model": {"dim": dim}, "data": {}}, list(rates), [0, 1, 2], 1000, {})


def plan(*variants):
    metric = ("test/accuracy", "max")
    by_name = {one.name: one for one in variants}
    return Plan("some", by_name, Budget("steps", 10), ("val/accuracy", "max"), metric, True, None)


def pretend(run: Run, value: float) -> None:
    """What a finished run leaves behind; of 100 test examples so many are right."""
    curve = [
        {"step": step, "seconds": step / 2, "flops": 1e9 * step, "val/accuracy": value * step / 10}
        for step in (5, 10)
    ]
    record = {"step": 10, "seconds": 5.0, "flops_per_step": 1e9, "memory_bytes": 1 << 30}
    write_json(run.place / "measure.json", {**record, "curve": curve})
    write_json(run.place / "metrics-fit.json", {"metrics": {}, "signatures": {}})
    write_json(run.place / "test/metrics-test.json", {"metrics": {"test/accuracy": value}})
    rows = [
        {
            "line": i,
            "true": "<b>",
            "made": "<b>" if i < 100 * value else "c",
            "correct": int(i < 100 * value),
        }
        for i in range(100)
    ]
    lines = [json.dumps(row) + "\n" for row in rows]
    (run.place / "test/outcomes.jsonl").write_text("".join(lines))


@pytest.fixture
def made(tmp_path):
    for name, scores in SCORES.items():
        for seed, value in scores.items():
            pretend(Run(tmp_path, name, 0.1, seed), value)
    two = plan(variant("good", 8), variant("bad", 16))
    return gather(two, tmp_path), tmp_path


class Page(HTMLParser):
    """Open elements, ids, and what is fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.ids, self.fetched = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.fetched.append(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(made):
    results, folder = made
    text = write_report(results, folder).read_text("utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.fetched == []
    assert len(page.ids) == len(set(page.ids))
    assert "<script" not in text
    assert text.count("<svg") == 4
    assert "prefers-color-scheme: dark" in text
    assert "#123456" not in text
    for reference in re.findall(r"url\(#([^)]*)\)", text):
        assert reference in page.ids


def test_both_reports_say_what_was_found(made):
    results, folder = made
    write_report(results, folder)
    for kind in ("html", "md"):
        text = (folder / f"report.{kind}").read_text("utf-8")
        assert "good is better than bad" in text
        assert "0.910 ± 0.025" in text  # t(0.975, 2) * 0.01 / sqrt(3)
        assert "against good" in text and "−0.387, worse" in text
        assert "model.dim" in text
        assert "1,024" in text  # MiB
        assert "lr-0.1/seed-0" in text or kind == "md"
    assert "<b></td>" not in (folder / "report.html").read_text("utf-8")  # texts are escaped
    assert (folder / "against-flops.svg").read_text("utf-8").startswith("<svg")


def test_results_hold_the_statistics(made):
    results, folder = made
    assert json.loads((folder / "results.json").read_text()) == results
    (pair,) = results["pairs"]
    assert pair["difference"] == pytest.approx(0.91 - 0.5233333)
    assert pair["bootstrap"]["low"] < pair["difference"] < pair["bootstrap"]["high"]
    assert pair["significant"]
    assert results["differences"] == {"model.dim": {"good": 8, "bad": 16}}
    assert all(row["right"] == {"good": True, "bad": False} for row in results["disagreements"])
    run = results["variants"]["good"]["runs"][0]
    assert run["best_step"] == 10
    assert run["metrics"] == {"val/accuracy": 0.9, "test/accuracy": 0.9}


def test_what_failed_or_is_missing_is_said(tmp_path):
    pretend(Run(tmp_path, "good", 0.1, 0), 0.9)
    failed = Run(tmp_path, "bad", 0.1, 0)
    failed.error.parent.mkdir(parents=True)
    failed.error.write_text("out of <memory>\n")
    results = gather(plan(variant("good", 8), variant("bad", 16)), tmp_path)
    text = write_report(results, tmp_path).read_text("utf-8")
    assert "bad/lr-0.1/seed-0 failed: out of &lt;memory&gt;" in text
    assert "Not finished: good/lr-0.1/seed-1, good/lr-0.1/seed-2." in text
    assert "0.9 (one seed)" in text
    assert "Nothing can be compared yet." in text


def test_the_best_rate_is_that_of_the_first_seed_on_validation(tmp_path):
    rates = variant("a", 8, (0.1, 0.2, 0.3))
    ours = plan(rates)
    pretend(Run(tmp_path, "a", 0.1, 0), 0.5)
    pretend(Run(tmp_path, "a", 0.2, 0), 0.8)
    assert best_rate(ours, tmp_path, "a") is None  # one is untried
    last = Run(tmp_path, "a", 0.3, 0)
    last.error.parent.mkdir(parents=True)
    last.error.write_text("it diverged")
    assert best_rate(ours, tmp_path, "a") == 0.2
    last.error.unlink()
    for lost in ("nan", "inf"):
        pretend(last, float(lost))
        assert best_rate(ours, tmp_path, "a") == 0.2
    found = gather(ours, tmp_path)["variants"]["a"]
    assert found["learning_rates"] == {"0.1": 0.5, "0.2": 0.8, "0.3": None}
    assert [run["state"] for run in found["runs"]] == ["finished", "unfinished", "unfinished"]
    write_report(gather(ours, tmp_path), tmp_path)


def test_a_variant_without_its_examples_has_no_bootstrap(made):
    _, folder = made
    (folder / "bad/lr-0.1/seed-1/test/outcomes.jsonl").unlink()
    results = gather(plan(variant("good", 8), variant("bad", 16)), folder)
    assert results["pairs"][0]["bootstrap"] is None
    assert results["pairs"][0]["significant"]


def test_examples_are_paired_by_their_places(made):
    _, folder = made
    both = plan(variant("good", 8), variant("bad", 16))
    file = folder / "bad/lr-0.1/seed-1/test/outcomes.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for changed in (
        [{**row, "line": row["line"] + 1} for row in rows],
        [{"line": row["line"]} for row in rows],  # as an older test left them
        [{**row, "tokens": 3} for row in rows],  # windows of another tokenizer
    ):
        file.write_text("".join(json.dumps(row) + "\n" for row in changed))
        assert gather(both, folder)["pairs"][0]["bootstrap"] is None


def test_many_pairs_and_their_learning_rates(tmp_path):
    names = [f"same-{i}" for i in range(5)] + ["worse"]
    for name in names:
        for rate in (0.1, 0.02):
            for seed in range(3) if rate == 0.1 else (0,):
                value = 0.9 + 0.01 * seed if name != "worse" else 0.5 + 0.01 * seed
                pretend(Run(tmp_path, name, rate, seed), value - 10 * (0.1 - rate) / 8)
    rates = {"same-0": (0.1, 0.02), "same-1": (0.02, 0.1)}
    ours = plan(*(variant(name, 8, rates.get(name, (0.1,))) for name in names))
    results = gather(ours, tmp_path)
    text = write_report(results, tmp_path).read_text("utf-8")
    assert "<li>same-0 and same-1</li>" in text
    assert text.count("<li>") == 10
    verdicts = re.findall("<p><b>(.*?)</b> <span", text)
    assert verdicts == [f"same-{i} is better than worse" for i in range(5)]
    assert "−0.4, worse" in text
    assert text.count(">0, not significant") == 4
    grid = text[text.index("<h2>Learning rates") :]
    assert grid.index("<th>0.02</th>") < grid.index("<th>0.1</th>")
    assert "<td>same-1</td><td>0.8</td><td><b>0.9</b></td>" in grid
    assert "<td>same-2</td><td>–</td><td><b>0.9</b></td>" in grid
    said = (tmp_path / "report.md").read_text("utf-8")
    edge = "Of those tried, same-0's is the largest and same-1's is the largest: others may serve"
    assert edge in said and "same-2's" not in said
    assert "- same-0 and same-1: no significant difference." in said
    assert "| same-1 | 0.8 | 0.9 |" in said


def test_no_curve_ends_outside_its_plot():
    def run(*values):
        return {"curve": [{"step": i, "val/loss": v} for i, v in enumerate(values)]}

    good = {"runs": [run(9.0, 2.0, *[1.0] * 20), run(9.0, 2.5, *[1.2] * 20)]}
    results = {"monitor": {"name": "val/loss", "mode": "min"}, "variants": {"good": good}}
    text = curves(results, "step")
    heights = [float(label) for label in re.findall(r">(\d\.\d+)</text>", text)]
    assert max(heights) < 2  # the first points lie outside
    results["variants"]["bad"] = {"runs": [run(9.0, 6.0)]}
    text = curves(results, "step")
    assert max(float(label) for label in re.findall(r">(\d)</text>", text)) == 6
    assert curves(results, "flops") == ""


def test_numbers_as_one_reads_them():
    shown = {1234567: "1,234,567", 0.5: "0.5", 1.5e12: "1.5e+12", 0.00001: "1e-05", None: "–"}
    assert {value: figure(value) for value in shown} == shown
    assert figure(123456.7) == "123,457"
    assert within(None) == "–"
    assert within({"mean": 23.456, "low": 11.0, "high": 35.912}) == "23 ± 12"
    assert within({"mean": 1.5, "low": 1.5, "high": 1.5}) == "1.5 ± 0"
    assert [signed(x) for x in (0.01234, -2.0, -0.0)] == ["+0.0123", "−2", "0"]


def test_results_are_not_changed_by_the_report(made):
    results, folder = made
    before = copy.deepcopy(results)
    write_report(results, folder)
    assert results == before
    assert Path(folder, "values.svg").exists()
