"""Where one of two processes fails, the other ends too, and what is written is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric.plugins.environments import LightningEnvironment
from PIL import Image
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy, ModelParallelStrategy
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from tasks.runs.ending import ending_together
from tasks.runs.folder import LastCheckpoint

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os
from tasks.cli import main
from tasks.cli.app import rank
from tasks.image_classification import ImageClassification as Task

def failing(name, at):
    step = getattr(Task, name)
    def fails(self, *batch):
        if self.global_step >= at and rank() == int(os.environ["FAILS"]):
            raise RuntimeError("the power went")
        return step(self, *batch)
    setattr(Task, name, fails)

failing(os.environ["STEP"], 3)
main()
"""
FIT = [
    "fit",
    "--config=image_classification/shapes",
    "--run_folder=run",
    "--trainer.max_steps=100000",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.devices=2",
    "--trainer.strategy=ddp",
    "--data.examples=200",
    "--data.batch_size=8",
]
TINY = {"dim": 16, "depth": 1, "heads": 2, "ffn_dim": 32}
FIT += [f"--model.model.init_args.config.{name}={value}" for name, value in TINY.items()]


def begun(folder: Path, *more: str, **where: str) -> subprocess.Popen[str]:
    (folder / "script.py").write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, "script.py", *FIT, *more],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **where},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def said(process: subprocess.Popen[str], seconds: int = 90) -> str:
    """What it prints; it and those that it began are ended where they do not end themselves."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        pytest.fail("still alive")
    finally:
        left = alive(process.pid)
        if left:
            os.killpg(process.pid, signal.SIGKILL)
    assert not left, "one process was left behind"
    assert process.returncode != 0
    return output


def alive(group: int) -> bool:
    for _ in range(50):  # who was killed is not gone at once
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


def last(folder: Path) -> int:
    return torch.load(folder / "run/checkpoints/last.ckpt", weights_only=True)["global_step"]


@pytest.mark.slow
@pytest.mark.parametrize(("fails", "step"), [(0, "training_step"), (1, "validation_step")])
def test_one_that_fails_leaves_no_other_waiting(tmp_path, fails, step):
    process = begun(tmp_path, FAILS=str(fails), STEP=step)
    assert "the power went" in said(process)
    written = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    # The first writes what it has, unless it is ended while it waits for another.
    assert written["global_step"] in ((3,) if fails == 0 else (2, 4))


@pytest.mark.slow
def test_too_few_examples_for_the_processes_are_said_in_one_sentence(tmp_path):
    for split, counts in (("train", (8, 8)), ("val", (1, 0))):
        for label, count in zip("ab", counts, strict=True):
            for i in range(count):
                file = tmp_path / "pictures" / split / label / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 16), (i * 9, 3, 99)).save(file)
    process = begun(tmp_path, "--data.root=pictures", "--data.batch_size=2", FAILS="2", STEP="loss")
    output = said(process)
    assert "family: evaluation has 1 example, too few for 2 processes" in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


class Waits:
    """A trainer of two processes whose collective save would wait for ever."""

    world_size, global_step, is_global_zero = 2, 3, True
    lightning_module = torch.nn.Linear(1, 1)

    def __init__(self, strategy):
        self.strategy, self.state = strategy, SimpleNamespace(fn="fit")
        self._checkpoint_connector = SimpleNamespace(dump_checkpoint=lambda **_: {"whole": True})

    def save_checkpoint(self, file):
        raise AssertionError("it waits")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("cls", [DDPStrategy, FSDPStrategy, ModelParallelStrategy])
def test_an_exception_enters_no_collective(cls, first, tmp_path):
    trainer = Waits(cls())
    trainer.is_global_zero = first
    callback = LastCheckpoint(tmp_path)
    callback.on_exception(trainer, None, RuntimeError("the power went"))
    # Where each process has but a part, none could write the whole.
    assert callback.file.exists() == (first and cls is DDPStrategy)


def test_those_that_the_first_started_end_with_it():
    ended = []
    launcher = _SubprocessScriptLauncher(LightningEnvironment(), 2, 1)
    launcher.procs = [SimpleNamespace(send_signal=ended.append, pid=0)]
    signals = SimpleNamespace(teardown=lambda: ended.append("signals are as before"))
    strategy = SimpleNamespace(launcher=launcher)
    trainer = SimpleNamespace(strategy=strategy, _signal_connector=signals)
    with pytest.raises(KeyError), ending_together(trainer):
        raise KeyError
    assert sorted(ended, key=str) == [signal.SIGKILL, "signals are as before"]
    with ending_together(trainer):
        pass
    assert len(ended) == 2
