"""``--optimizer`` and ``--lr_scheduler`` train as their classes do, or one sentence says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from family import load, save_pretrained, vit_tiny
from tasks.cli import main

TINY = {"dim": 16, "depth": 1, "heads": 2, "ffn_dim": 32}
FEW = [
    "fit",
    "--config=image_classification/shapes",
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--data.examples=64",
    "--data.batch_size=8",
    "--data.image_size=16",
]
FIT = [*FEW, *(f"--model.model.init_args.config.{name}={value}" for name, value in TINY.items())]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*options, name="run", call=FIT):
    main([*call, f"--run_folder={name}", *options])
    return torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)


def refused(capsys, *options, call=FIT):
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*call, "--run_folder=refused", *options])
    assert not Path("refused").exists()
    return capsys.readouterr().err.splitlines()[-1]


def test_sgd_of_torch_trains_and_goes_on(capsys):
    content = fit("--optimizer=SGD", "--optimizer.lr=0.05", "--optimizer.momentum=0.5")
    (group,) = content["optimizer_states"][0]["param_groups"]
    assert group["lr"] == 0.05 and group["momentum"] == 0.5
    assert len(group["params"]) == len(list(load("run").model.parameters()))
    main(["resume", "run", "--trainer.max_steps=3", "--run_folder=more"])
    assert json.loads(Path("more/metrics-fit.json").read_text())["step"] == 3
    other = ["--ckpt_path=run", "--trainer.max_steps=3"]
    said = refused(capsys, *other)
    assert "was trained with model.optimizer='torch.optim." in said
    said = refused(capsys, *other, "--optimizer=Adagrad")
    assert "Adagrad" in said and "SGD" in said


def test_a_schedule_goes_with_it(capsys):
    step = ["--lr_scheduler=StepLR", "--lr_scheduler.step_size=1", "--lr_scheduler.gamma=0.5"]
    content = fit("--optimizer=SGD", "--optimizer.lr=0.1", *step, "--trainer.limit_train_batches=1")
    assert content["lr_schedulers"][0]["gamma"] == 0.5
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] < 0.1
    assert "needs --optimizer" in refused(capsys, *step)


def test_what_cannot_train_a_model_says_so(capsys):
    assert "--optimizer torch.optim" in refused(capsys, "--optimizer=torch.optim.Muon")
    assert "layer_decay" in refused(capsys, "--optimizer=SGD", "--model.layer_decay=0.5")


def test_a_source_takes_the_place_of_the_configs_model(folder, capsys):
    save_pretrained(vit_tiny(9, patch_size=4, image_size=16, **TINY), folder / "source")
    content = fit("--model.pretrained=source", call=FEW)
    assert content["family"]["pretrained"] == "source"
    said = refused(capsys, "--model.pretrained=source")  # who names both does not say which
    assert "leave model.model out" in said


def test_a_freeze_pattern_that_matches_nothing_names_some_that_do(capsys):
    for pattern, near in (
        ("block.0", "blocks.0.*"),
        ("blocks.0", "blocks.0.*"),
        ("xyz", "There are"),
    ):
        said = refused(capsys, f"--model.freeze=['{pattern}']")
        assert near in said, said
