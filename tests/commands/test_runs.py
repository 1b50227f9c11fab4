"""``family runs``: a table, one run with its curves, and plain values."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from tasks.cli import main
from tasks.commands.runs import sparkline


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "runs/words"
    (place / "logs").mkdir(parents=True)
    (place / "config.yaml").write_text(
        "model: {class_path: tasks.Translation, init_args: {lr: 0.5, note: '[x]', "
        "model: {init_args: {config: {dim: 8, bias: true}}}}}\ntrainer: {max_steps: 9, profiler: no}\n"
    )
    (place / "logs/metrics.csv").write_text(
        "step,train/loss,val/loss,val/bleu\n0,3,,\n4,2,2.5,10\n8,1,2.0,12\n"
    )
    state = {"state": "failed", "error": "the disk is full", "monitor": ["val/bleu", "max"]}
    state["command"] = ["family", "fit", "--config", "translation/shapes"]
    (place / "state.json").write_text(json.dumps(state))
    return tmp_path


def test_the_table(capsys):
    main(["runs"])
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "task", "config", "state", "steps", "best", "age"]
    words = "words Translation translation/shapes failed 9 val/bleu 12"
    assert " ".join(line.split()).startswith(words)
    main(["runs", "--format", "json"])
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["best"], one["state"], one["error"]) == (12.0, "failed", "the disk is full")


def test_one_run_with_its_curves(capsys, runs):
    main(["runs", "show", "runs/words"])
    said = capsys.readouterr().out
    assert "the disk is full" in said and "best val/bleu: 12" in said and "█▅▁" in said
    assert "model.lr" in said and "[x]" in said and "trainer.max_steps" in said
    assert (
        "profiler" not in said and "config.bias" not in said
    )  # the trainer's own, and as in any stack
    with Image.open(runs / "runs/words/curves.png") as picture:
        assert picture.width > 600 and len(picture.convert("RGB").getcolors(1 << 24)) > 50
    main(["runs", "show", "runs/words", "--format", "json", "--out", "other.png"])
    assert json.loads(capsys.readouterr().out)["curves"]["val/bleu"] == [[4, 10.0], [8, 12.0]]
    assert (runs / "other.png").is_file()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (["runs", "none"], "none is no folder of runs"),
        (["runs", "show", "runs"], "runs is no run"),
        (["runs", "show", "none"], "there is no run none"),
        (["runs", "show", "runs/words", "--out", "a.txt"], "a.txt is no name of a picture"),
    ],
)
def test_one_sentence(call, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(call)
    assert ended.value.code == 2 and words in capsys.readouterr().err


def test_sparklines():
    assert sparkline([(0, 0.0), (1, 7.0), (2, float("nan")), (3, 3.5)]) == "▁█ ▅"
    assert sparkline([(0, 1.0), (1, 1.0)]) == "▄▄" and sparkline([(0, 1.0)]) == ""
    assert len(sparkline([(i, float(i)) for i in range(1000)])) == 32


def test_a_folder_that_is_no_run_hides_no_other(capsys, runs):
    for name, text in (("half", ""), ("other", "model: resnet50\n")):
        (runs / "runs" / name / "logs").mkdir(parents=True)
        (runs / "runs" / name / "config.yaml").write_text(text)
    (runs / "runs/other/state.json").write_text('{"monitor": "val/loss"}')
    (runs / "runs/other/metrics-fit.json").write_text("[]")
    main(["runs"])
    said = capsys.readouterr()
    assert "words" in said.out and "other" in said.out and "half" in said.err
