"""A comparison from the command to the report, on models of a few thousand weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tasks.cli import main

SMALL = {
    "model.init_args.model.init_args.config": {
        "dim": 16,
        "depth": 1,
        "heads": 2,
        "ffn_dim": 32,
        "dropout": 0.2,
    }
}


def weights(run):
    return torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


class Failing(nn.Module):
    """Cannot do what it was built for."""

    def __init__(self, vocab_size: int, num_classes: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(vocab_size, num_classes))

    def forward(self, input_ids, mask):
        raise RuntimeError("the third layer is missing")


@pytest.mark.slow
def test_identical_variants_are_told_so(comparison, results, capsys):
    """Other seeds: no significant difference. The same seeds: the same weights to the bit."""
    arguments = comparison(
        variants={"a": SMALL, "b": SMALL, "c": SMALL},
        seeds={"a": [0, 1], "b": [2, 3], "c": [0]},
        budget={"steps": 12},
        validations=1,
        test=False,
    )
    main(arguments)
    found = results("made")
    verdicts = {(p["a"], p["b"]): p["verdict"] for p in found["pairs"]}
    assert "no significant difference" in verdicts["a", "b"]
    one, two = weights("made/a/lr-0.003/seed-0"), weights("made/c/lr-0.003/seed-0")
    other = weights("made/a/lr-0.003/seed-1")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert found["variants"]["a"]["values"][0] == found["variants"]["c"]["values"][0]
    assert verdicts["a", "b"] in Path("made/report.md").read_text("utf-8")
    assert verdicts["a", "b"] in capsys.readouterr().out


@pytest.mark.slow
def test_failures_are_reported_and_the_others_go_on_and_rates_are_chosen(
    comparison, results, monkeypatch, tmp_path
):
    source = Path(__file__).read_text("utf-8")
    (tmp_path / "failing.py").write_text(
        "import torch\nfrom torch import nn\n\n\n"
        + source[source.index("class Failing") : source.index("@pytest")]
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    arguments = comparison(
        variants={
            "good": SMALL,
            "failing": {"model.init_args.model": {"class_path": "failing.Failing"}},
        },
        learning_rates={"good": [1e-9, 1e-2]},
        budget={"tokens": 40_000},
        seeds=[0],
    )
    main(arguments)
    found = results("made")
    good, failing = found["variants"]["good"], found["variants"]["failing"]
    assert "the third layer is missing" in failing["failures"]["failing/lr-0.003/seed-0"]
    assert failing["values"] == []
    assert good["learning_rate"] == 1e-2
    assert good["learning_rates"]["1e-09"] < good["learning_rates"]["0.01"]
    assert good["costs"]["tokens"] == pytest.approx(40_000, rel=0.03)
    assert good["values"]
    page = Path("made/report.html").read_text("utf-8")
    assert "the third layer is missing" in page
    assert "1e-09" in page

    # Started again, it repeats nothing that was finished.
    record = Path("made/good/lr-0.01/seed-0/measure.json")
    before = record.stat().st_mtime_ns
    main([*arguments, "--only=good/lr-best/seed-0"])
    main([*arguments, "--report"])
    assert record.stat().st_mtime_ns == before
    assert json.loads(Path("made/results.json").read_text())["variants"]["good"] == good


def test_commands_for_a_scheduler(comparison, capsys):
    arguments = comparison(learning_rates={"a": [1e-3, 1e-2]})
    main([*arguments, "--print_commands"])
    lines = capsys.readouterr().out.splitlines()
    runs = [line.split("--only ")[1] for line in lines if "--only" in line]
    assert runs == [
        *("a/lr-0.001/seed-2", "a/lr-0.01/seed-2", "b/lr-0.003/seed-0", "b/lr-0.003/seed-1"),
        *("a/lr-best/seed-0", "a/lr-best/seed-1"),
    ]
    assert all("--data.examples=400" in line for line in lines if "--only" in line)
    assert lines[-1].endswith("--report")
    assert not list(Path("made").rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only=a/lr-0.03/seed-0"], "no such run. Did you mean 'a/lr-0.003/seed-0'?"),
        (["--devices=0"], "--devices must be at least 1, not 0"),
        (["--fodler=x"], "unknown option --fodler=x. Did you mean 'folder'?"),
        (["--model.model.init_args.confg.dim=3"], "variants.a: "),
    ],
)
def test_mistakes_are_one_sentence(comparison, capsys, options, said):
    arguments = comparison()
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, *options])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
