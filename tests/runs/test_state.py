"""What a run says of itself, and what became of it; loggers of a config stand beside its own."""

from __future__ import annotations

import json
import os
import signal

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tasks.cli import main
from tasks.errors import UserError
from tasks.image_classification import ImageClassification
from tasks.runs.overview import read_run, runs_in
from tasks.runs.state import FAILED, FINISHED, RUNNING, STATE, STOPPED, state_of, stated

TRAIN = [
    "fit",
    "--config=image_classification/shapes",
    "--run_folder=run",
    "--trainer.max_steps=3",
    "--trainer.val_check_interval=1",
    "--trainer.limit_val_batches=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.num_sanity_val_steps=0",
    "--data.examples=64",
    "--data.batch_size=8",
    "--data.image_size=16",
    *(f"--model.model.init_args.config.{one}" for one in ("dim=16", "depth=1", "heads=2")),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_with_another_logger_keeps_its_folder_and_says_all(folder):
    """A logger of Lightning's stands for Weights & Biases and MLflow."""
    main([*TRAIN, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=there"])
    assert list((folder / "there").rglob("metrics.csv"))
    one = read_run(folder / "run")
    assert one.state["state"] == FINISHED and one.step == 3 and one.task == "ImageClassification"
    assert one.state["command"][:3] == ["family", "fit", "--config=image_classification/shapes"]
    assert one.state["monitor"] == ["val/accuracy", "max"]
    points = one.curves["val/accuracy"]
    assert len(points) == 3 and one.best() == ("val/accuracy", max(v for _, v in points))
    board = EventAccumulator(str(folder / "run/logs"), size_guidance={"scalars": 0})
    board.Reload()
    read = [(e.step, e.value) for e in board.Scalars("val/accuracy")]
    assert read == [(step, pytest.approx(value)) for step, value in points]


def test_a_run_that_fails_says_why(folder, monkeypatch):
    def failing(self, *batch):
        raise RuntimeError("of many lines\nthe first step fails")

    monkeypatch.setattr(ImageClassification, "on_train_batch_end", failing)
    with pytest.raises(RuntimeError):
        main(TRAIN)
    found = state_of(folder / "run")
    assert found["state"] == FAILED and found["error"] == "the first step fails"


def test_states(folder):
    seen = []
    with stated(folder, {"command": ["x"]}):
        seen.append(json.loads((folder / STATE).read_text()))
    assert seen[0]["state"] == RUNNING and seen[0]["process"] == os.getpid()
    assert state_of(folder)["state"] == FINISHED
    with pytest.raises(SystemExit), stated(folder, {}):
        raise SystemExit(128 + signal.SIGTERM)
    assert state_of(folder)["state"] == STOPPED
    killed = seen[0] | {"process": 2**22 + 1}  # above the system's largest
    (folder / STATE).write_text(json.dumps(killed))
    assert state_of(folder)["state"] == STOPPED
    (folder / STATE).write_text(json.dumps(killed | {"host": "another"}))
    assert state_of(folder)["state"] == RUNNING
    (folder / STATE).write_text("{")
    assert state_of(folder)["state"] == STOPPED
    (folder / "metrics-fit.json").write_text("{}")
    assert state_of(folder)["state"] == FINISHED


def test_a_folder_that_is_removed_stays_so(folder):
    with pytest.raises(UserError), stated(folder / "gone", {}):
        raise UserError("no")
    assert not (folder / "gone").exists()


def test_runs_below_a_folder_the_newest_first(folder):
    for i, name in enumerate(("a", "b/c")):
        place = folder / name
        (place / "logs").mkdir(parents=True)
        (place / "config.yaml").write_text("model: {class_path: tasks.Translation}\n")
        # A line that is being written, and a number that is none.
        (place / "logs/metrics.csv").write_text(
            "epoch,step,val/bleu\n0,4,30\n0,9,20\n0,12,nan\n0,1"
        )
        for file in (place, place / "logs", *place.glob("*"), *place.glob("logs/*")):
            os.utime(file, (100 + i, 100 + i))
    (folder / "no_run").mkdir()
    (folder / "no_run/config.yaml").write_text("a: 1")
    found = runs_in(folder)
    assert [one.folder.name for one in found] == ["c", "a"]
    assert found[0].best() == ("val/bleu", 30.0) and found[0].step == 13
