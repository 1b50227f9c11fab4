"""What earlier versions wrote is still read: runs and folders under tests/fixtures, by fixtures/make.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

import family
import tasks
from tasks.cli import main
from tasks.runs.checkpoints import load_checkpoint

FIXTURES = Path(__file__).parent / "fixtures"


def task_of(folder):
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    return config["model"]["class_path"].rpartition(".")[2]


def model_of_run(folder):
    return load_checkpoint(str(folder), task_of(folder)).model


def model_of_folder(folder):
    return family.from_pretrained(folder)


def outputs_of(model, inputs):
    """On one thread, as sums of many are rounded by how they are shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            return model(**inputs)
    finally:
        torch.set_num_threads(threads)


def resume(folder, target, steps):
    """Train on from where a run stopped; returns the step that it came to."""
    options = [f"--config={folder / 'config.yaml'}", f"--ckpt_path={folder}"]
    main(["fit", *options, f"--trainer.max_steps={steps}", f"--run_folder={target}"])
    return json.loads((target / "metrics-fit.json").read_text())["step"]


def folders(kind):
    found = sorted(path.parent for path in (FIXTURES / kind).glob("*/expected.pt"))
    return [pytest.param(folder, id=folder.name) for folder in found]


def check(model, folder):
    kept = torch.load(folder / "expected.pt", weights_only=True)
    assert not model.training
    # Another processor may round otherwise.
    torch.testing.assert_close(
        outputs_of(model, kept["inputs"]), kept["outputs"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("folder", folders("runs"))
def test_run(folder):
    check(model_of_run(folder), folder)


@pytest.mark.parametrize("folder", folders("runs"))
def test_run_in_python(folder):
    loaded = family.load(folder)
    assert loaded.task == task_of(folder)
    check(loaded.model, folder)
    check(family.from_pretrained(folder), folder)
    task = getattr(tasks, task_of(folder)).load_from_checkpoint(folder)
    check(task.model, folder)
    assert task.assets() == loaded.assets


@pytest.mark.parametrize("folder", folders("folders"))
def test_folder(folder):
    check(model_of_folder(folder), folder)


@pytest.mark.parametrize("folder", folders("runs"))
def test_resumed_run(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("FAMILY_RUN_FOLDER", raising=False)
    monkeypatch.chdir(FIXTURES.parents[1])  # one names the folder that its weights came from
    assert resume(folder, tmp_path / "more", steps=3) == 3


def test_they_are_there():
    assert (len(folders("runs")), len(folders("folders"))) == (10, 14)
