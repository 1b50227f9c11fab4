"""``--optimizer`` and ``--lr_scheduler`` train as their classes do, or one sentence says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch.optim import Optimizer

from family import load, save_pretrained, vit_tiny
from tasks.cli import main
from tasks.cli.optimizers import use_given
from tasks.errors import UserError
from tasks.image_classification import ImageClassification

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_a_resumed_run_keeps_of_them_is_not_passed_over(capsys):
    sgd = ["--optimizer=SGD", "--optimizer.lr=0.1", "--optimizer.momentum=0.5"]
    step = ["--lr_scheduler=StepLR", "--lr_scheduler.step_size=1", "--lr_scheduler.gamma=0.5"]
    fit(*sgd, *step)
    more = ["--ckpt_path=run", "--trainer.max_steps=3"]
    said = refused(capsys, *more, *sgd, *step, "--optimizer.lr=0.01")
    assert "was trained with --optimizer.lr=0.1" in said and "says 0.01" in said
    said = refused(capsys, *more, *sgd, *step, "--lr_scheduler.gamma=0.9")
    assert "--lr_scheduler.gamma=0.5" in said
    assert "--lr_scheduler" in refused(capsys, *more, *sgd)
    main([*FIT, "--run_folder=more", *more, *sgd, *step])
    task = ImageClassification.load_from_checkpoint("more")
    assert task.options["optimizer"].endswith("SGD")


@pytest.mark.slow
def test_a_schedule_goes_with_it(capsys):
    step = ["--lr_scheduler=StepLR", "--lr_scheduler.step_size=1", "--lr_scheduler.gamma=0.5"]
    content = fit("--optimizer=SGD", "--optimizer.lr=0.1", *step, "--trainer.limit_train_batches=1")
    assert content["lr_schedulers"][0]["gamma"] == 0.5
    assert content["optimizer_states"][0]["param_groups"][0]["lr"] < 0.1
    assert "needs --optimizer" in refused(capsys, *step)


@pytest.mark.slow
def test_what_cannot_train_a_model_says_so(capsys):
    assert "--optimizer torch.optim" in refused(capsys, "--optimizer=torch.optim.Muon")
    assert "sparse gradients" in refused(capsys, "--optimizer=SparseAdam")
    assert "layer_decay" in refused(capsys, "--optimizer=SGD", "--model.layer_decay=0.5")


def subclasses(cls):
    return {cls, *(found for one in cls.__subclasses__() for found in subclasses(one))}


OPTIMIZERS = {
    f"torch.optim.{c.__name__}" for c in subclasses(Optimizer) if hasattr(torch.optim, c.__name__)
}
NEEDS = {
    "LambdaLR": {"lr_lambda": float},
    "MultiplicativeLR": {"lr_lambda": float},
    "StepLR": {"step_size": 1},
    "MultiStepLR": {"milestones": [1]},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingLR": {"T_max": 3},
    "CosineAnnealingWarmRestarts": {"T_0": 3},
    "CyclicLR": {"base_lr": 0.1, "max_lr": 0.2},
    "OneCycleLR": {"max_lr": 0.2, "total_steps": 4},
    "ReduceLROnPlateau": {},
}


def with_given(optimizer, schedule=None):
    module = pl.LightningModule()
    module.layer = torch.nn.Linear(2, 2)
    use_given(module, optimizer, schedule)
    return module


@pytest.mark.parametrize("path", sorted(OPTIMIZERS - {"torch.optim.Optimizer"}))
def test_every_optimizer_of_torch_steps_or_says_why_not(path):
    module = with_given({"class_path": path, "init_args": {"lr": 0.1}})
    if path.endswith(("Muon", "SparseAdam")):  # for matrices alone, for sparse gradients alone
        with pytest.raises((UserError, RuntimeError), match="Muon|Sparse"):
            step(module, module.configure_optimizers())
        return
    before = module.layer.weight.clone()
    step(module, module.configure_optimizers())
    assert not torch.equal(before, module.layer.weight)


def step(module, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = module.layer(torch.ones(1, 2)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


@pytest.mark.parametrize("name", NEEDS)
def test_schedules_of_torch_are_made(name):
    path = f"torch.optim.lr_scheduler.{name}"
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.5}}
    found = with_given(sgd, {"class_path": path, "init_args": NEEDS[name]}).configure_optimizers()
    assert type(found[1][0]).__name__ == name
    if name == "StepLR":
        module = with_given(sgd, {"class_path": path, "init_args": {}})
        with pytest.raises(UserError, match="--lr_scheduler .*step_size"):
            module.configure_optimizers()


def test_our_own_are_chosen_by_the_task():
    with pytest.raises(UserError, match="choose it by model.optimizer=muon"):
        with_given({"class_path": "tasks.training.optim.MuonAdamW"})


def test_a_source_takes_the_place_of_the_configs_model(folder, capsys):
    save_pretrained(vit_tiny(9, patch_size=4, image_size=16, **TINY), folder / "source")
    content = fit("--model.pretrained=source", call=FEW)
    assert content["family"]["pretrained"] == str(Path("source").absolute())  # from any folder
    said = refused(capsys, "--model.pretrained=source")  # who names both does not say which
    assert "leave model.model out" in said


@pytest.mark.slow
def test_a_config_that_names_both_a_source_and_a_model_does_not_say_which(folder, capsys):
    save_pretrained(vit_tiny(9, patch_size=4, image_size=16, **TINY), folder / "source")
    main([*FIT, "--run_folder=run"])
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    config["model"]["init_args"]["pretrained"] = "source"
    Path("both.yaml").write_text(yaml.safe_dump(config))
    assert "leave model.model out" in refused(capsys, call=["fit", "--config=both.yaml"])
    # A run's own config names all options, those that nobody gave as null.
    fit("--model.pretrained=source", call=["fit", "--config=run/config.yaml"], name="more")


@pytest.mark.slow
def test_a_freeze_pattern_that_matches_nothing_names_some_that_do(capsys):
    for pattern, near in (
        ("block.0", "blocks.0.*"),
        ("blocks.0", "blocks.0.*"),
        ("xyz", "There are"),
    ):
        said = refused(capsys, f"--model.freeze=['{pattern}']")
        assert near in said, said
