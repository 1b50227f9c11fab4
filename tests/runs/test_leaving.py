"""Told to leave, a run keeps its state and says so by its exit code; who goes on with it goes on to the bit."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from test_failing import begun, last, said
from test_folder import TRAIN, step_of
from test_place import Follow
from torch.utils.data import DataLoader

from tasks.cli import main
from tasks.image_classification import ImageClassification
from tasks.runs.ending import Leaving
from tasks.runs.folder import LastCheckpoint

SUMMED = ["--trainer.accumulate_grad_batches=2", "--trainer.max_steps=4"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def told(monkeypatch, step, number, sent=signal.SIGTERM):
    """Send a signal in the n-th call of a task's step."""
    calls, does = [], getattr(ImageClassification, step)

    def telling(self, batch, index):
        calls.append(index)
        if len(calls) == number:
            os.kill(os.getpid(), sent)
        return does(self, batch, index)

    monkeypatch.setattr(ImageClassification, step, telling)


def code_of(arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def weights(run):
    return torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    ("step", "number"),
    [("training_step", 3), pytest.param("validation_step", 2, marks=pytest.mark.slow)],
)
def test_told_in_the_midst_of_a_step_or_of_a_validation(step, number, monkeypatch):
    main([*TRAIN, *SUMMED, "--run_folder=whole"])
    with monkeypatch.context() as patch:
        told(patch, step, number)
        assert code_of([*TRAIN, *SUMMED]) == 143
    assert step_of("last") == 1  # of four batches, two by two
    main([*TRAIN, *SUMMED, "--run_folder=rest", "--ckpt_path=run"])
    whole, rest = weights("whole"), weights("rest")
    assert all(torch.equal(rest[name], whole[name]) for name in whole)


def interrupt(*_):
    raise KeyboardInterrupt  # where tests run in the background, the signal is ignored


@pytest.mark.slow
def test_ctrl_c_keeps_the_state_and_says_so_too(monkeypatch):
    monkeypatch.setattr(os, "kill", interrupt)
    told(monkeypatch, "training_step", 3, signal.SIGINT)
    assert code_of(TRAIN) == 130
    assert step_of("last") == 2


@pytest.mark.slow
def test_told_at_its_last_batch_a_run_ends_as_it_would(monkeypatch):
    told(monkeypatch, "validation_step", 3)  # of the last one
    main([*TRAIN, "--trainer.limit_val_batches=1", "--trainer.max_steps=4"])
    assert Path("run/metrics-fit.json").exists()


def test_weights_in_the_midst_of_the_optimizers_step_are_not_kept(monkeypatch):
    task = Follow()
    trainer = pl.Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        callbacks=[LastCheckpoint(Path("half"))],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    made = []

    def half(*_):
        made.append(task.model.line.weight.clone())
        if len(made) == 3:
            raise RuntimeError("the power went")

    build = task.configure_optimizers

    def cut():
        found = build()
        found["optimizer"].register_step_post_hook(half)
        return found

    task.configure_optimizers = cut
    with pytest.raises(RuntimeError, match="power"):
        trainer.fit(task, DataLoader([{"rows": torch.tensor(i)} for i in range(9)]))
    assert trainer.global_step == 2 and not Path("half/last.ckpt").exists()


def test_predictions_end_where_they_were_told():
    callback = Leaving()
    callback.on_predict_batch_end(SimpleNamespace())
    callback.told = True
    with pytest.raises(SIGTERMException):
        callback.on_predict_batch_end(SimpleNamespace())


@pytest.mark.slow
@pytest.mark.parametrize("everyone", [False, True])
def test_two_processes_leave_at_the_same_batch(everyone, tmp_path):
    """Be it that the first is told alone, as by hand, or both, as by a scheduler."""
    process = begun(tmp_path, FAILS="2", STEP="loss")
    deadline = time.monotonic() + 600  # of two imports on a busy machine
    while not (tmp_path / "run/checkpoints/last.ckpt").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    (os.killpg if everyone else os.kill)(process.pid, signal.SIGTERM)
    output = said(process, 300)
    assert process.returncode == 143, output
    assert last(tmp_path) >= 2
