"""Checkpoints and logs are written aside, in their own folder, and take their names once they are whole."""

from __future__ import annotations

import csv
import os
import signal
import tempfile

import pytest
import pytorch_lightning as pl
import torch

from tasks.runs.folder import run_loggers
from tasks.runs.writing import WholeCheckpoints, written_whole


def test_a_checkpoint_is_never_half_there(tmp_path, monkeypatch):
    def elsewhere(*_, **__):
        raise AssertionError("another disk")

    monkeypatch.setattr(tempfile, "mkstemp", elsewhere)
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    written_whole(trainer)
    file = tmp_path / "checkpoints/last.ckpt"
    trainer.strategy.checkpoint_io.save_checkpoint({"weights": torch.arange(9)}, file)
    old = file.read_bytes()
    save = torch.save

    def killed(content, opened):
        save(content, opened)
        opened.truncate(opened.tell() // 2)
        opened.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(torch, "save", killed)
    if not (child := os.fork()):
        WholeCheckpoints().save_checkpoint({"weights": torch.arange(8)}, file)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert file.read_bytes() == old and torch.load(file)["weights"].tolist() == list(range(9))
    monkeypatch.setattr(torch, "save", save)
    WholeCheckpoints().save_checkpoint({"weights": torch.arange(7)}, file)
    assert [each.name for each in file.parent.iterdir()] == ["last.ckpt"]


def test_a_trainers_own_way_of_writing_stays():
    class Own(WholeCheckpoints):
        pass

    trainer = pl.Trainer(logger=False, accelerator="cpu", plugins=[Own()])
    written_whole(trainer)
    assert type(trainer.strategy.checkpoint_io) is Own


def test_logs_that_get_a_column_are_whole_or_as_they_were(tmp_path, monkeypatch):
    logger = run_loggers(tmp_path)[0]
    logger.log_metrics({"a": 1.0}, step=1)
    logger.save()
    file = tmp_path / "logs/metrics.csv"
    old = file.read_bytes()

    def cut(*_):
        raise RuntimeError("the power went")

    logger.log_metrics({"b": 2.0}, step=2)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power"):
        patch.setattr(csv.DictWriter, "writerows", cut)
        logger.save()
    assert file.read_bytes() == old
    logger.log_metrics({"c": 3.0}, step=3)
    logger.save()
    rows = list(csv.DictReader(file.open()))
    assert next((row["a"], row["b"], row["c"]) for row in rows) == ("1.0", "", "")
    assert {row["c"] for row in rows} == {"", "3.0"}
