"""Training on a full disk ends in one sentence that names the file; what was there before is whole."""

from __future__ import annotations

import errno
import resource
import signal
from pathlib import Path

import pytest
import torch

from tasks.cli import main
from tasks.image_classification import ImageClassification
from tasks.runs.folder import RunRecord

FIT = [
    "fit",
    "--config=image_classification/shapes",
    "--run_folder=run",
    "--trainer.max_steps=4",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
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
def room(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def full():
    """From now on no file may be larger than a config or logs are."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))


def sentence(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("family: ")]
    assert ended.value.code == 2 and len(said) == 1
    assert not list(Path("run").rglob("*.new"))
    return said[0]


@pytest.mark.parametrize("step", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_a_checkpoint_that_has_no_room(step, monkeypatch, capsys):
    train = ImageClassification.training_step

    def filling(self, batch, index):
        if self.global_step == step:
            full()
        return train(self, batch, index)

    monkeypatch.setattr(ImageClassification, "training_step", filling)
    before = signal.getsignal(signal.SIGTERM)
    said = sentence(capsys, FIT)
    assert signal.getsignal(signal.SIGTERM) is before  # though the last checkpoint failed, too
    assert "checkpoints/" in said and ".ckpt cannot be written: File too large. Make room" in said
    last = Path("run/checkpoints/last.ckpt")
    assert last.exists() == (step > 0)
    if step:
        assert torch.load(last, weights_only=True)["global_step"] == 2
        assert "family resume run goes on from its last checkpoint" in said
    assert Path("run/logs").exists()  # what was found is not thrown away


@pytest.mark.slow
def test_metrics_that_have_no_room(monkeypatch, capsys):
    write = RunRecord._write

    def no_room(self, *given):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_text", fails)
            write(self, *given)

    def fails(self, *_, **__):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunRecord, "_write", no_room)
    said = sentence(capsys, FIT)
    assert "metrics-fit.json cannot be written: No space left on device." in said
    # The run is at its end, but for them: the last validation is made again.
    monkeypatch.setattr(RunRecord, "_write", write)
    main(["resume", "run", "--run_folder=rest", "--trainer.accelerator=cpu"])
    assert Path("rest/metrics-fit.json").exists()
    with pytest.raises(SystemExit):
        main(["resume", "rest", "--run_folder=more", "--trainer.accelerator=cpu"])
    assert "is at its end" in capsys.readouterr().err


@pytest.mark.slow
def test_logs_that_have_no_room(monkeypatch, capsys):
    def fails(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tasks.runs.writing.WholeCSVLogger.save", fails)
    said = sentence(capsys, [*FIT, "--trainer.log_every_n_steps=1"])
    assert said.startswith("family: run cannot be written: No space left on device.")
