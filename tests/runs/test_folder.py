"""What a run leaves behind: the last state and the best, and nothing where it never began."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tasks.cli import main
from tasks.errors import UserError
from tasks.image_classification import ImageClassification
from tasks.runs.checkpoints import find_checkpoint, load_checkpoint
from tasks.runs.folder import RunRecord

FIT = [
    "fit",
    "--config=image_classification/shapes",
    "--run_folder=run",
    "--trainer.max_steps=3",
    "--trainer.val_check_interval=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.num_sanity_val_steps=0",
    "--data.examples=64",
    "--data.batch_size=8",
    *(f"--model.model.init_args.config.{option}" for option in ("dim=16", "depth=1", "heads=2")),
    "--model.model.init_args.config.ffn_dim=32",
]
TRAIN = [*FIT, "--data.image_size=16"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def step_of(name):
    return torch.load(f"run/checkpoints/{name}.ckpt", weights_only=True)["global_step"]


def test_the_last_state_is_kept_beside_the_best():
    main(TRAIN)
    assert step_of("best") == max(reversed(validated()), key=validated().get)
    assert step_of("last") == 3


@pytest.mark.slow
def test_the_best_of_before_is_the_best_until_it_is_beaten(folder):
    """A run that goes on in another folder would else call its own first validation the best."""
    main([*TRAIN, "--model.lr=1"])  # where it only gets worse
    best = Path("run/checkpoints/best.ckpt")
    above = {"best_model_score": torch.tensor(1.5), "current_score": torch.tensor(1.5)}
    for file in (best, Path("run/checkpoints/last.ckpt")):  # as if it had been so good
        content = torch.load(file, weights_only=True)
        for name, state in content["callbacks"].items():
            if name.startswith("BestCheckpoint"):
                state.update(above)
        torch.save(content, file)
    folder.joinpath("run").rename("moved")
    more = ["--run_folder=run", "--trainer.max_steps=5"]
    main([*TRAIN, *more, "--model.lr=1", "--ckpt_path=moved"])
    assert (
        step_of("last") == 5
        and best.read_bytes() == Path("moved/checkpoints/best.ckpt").read_bytes()
    )
    # One of after the checkpoint that is gone on from is none of its.
    content["callbacks"] = {}
    torch.save(content, "moved/checkpoints/best.ckpt")
    main([*TRAIN, *more, "--model.lr=1", "--ckpt_path=moved", "--run_folder=other"])
    assert torch.load("other/checkpoints/best.ckpt", weights_only=True)["global_step"] in (4, 5)


def validated():
    """The score at each step that was validated."""
    with open("run/logs/metrics.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/accuracy")]
    return {int(row["step"]) + 1: float(row["val/accuracy"]) for row in rows}


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        (["max_steps=3"], [2, 3]),
        (["max_steps=1"], [1]),
        (["max_steps=4"], [2, 4]),
        (
            ["max_steps=-1", "max_epochs=2", "val_check_interval=3", "limit_train_batches=4"],
            [3, 6, 8],
        ),
        (["max_steps=3", "val_check_interval=1.0", "check_val_every_n_epoch=5"], [3]),
        (
            [
                "max_steps=-1",
                "max_epochs=3",
                "val_check_interval=1.0",
                "limit_train_batches=1",
                "check_val_every_n_epoch=2",
            ],
            [2, 3],
        ),
    ],
)
@pytest.mark.slow
def test_a_run_is_validated_where_it_ends(limits, steps):
    main([*TRAIN, *(f"--trainer.{limit}" for limit in limits)])
    assert list(validated()) == steps
    assert step_of("best") in steps
    record = json.loads(Path("run/metrics-fit.json").read_text())
    assert record["metrics"]["val/accuracy"] == pytest.approx(validated()[steps[-1]])


def test_an_error_saves_the_last_state_and_leaves_the_best_alone(monkeypatch):
    train = ImageClassification.training_step

    def fails(self, batch, index):
        if self.global_step == 3:
            raise RuntimeError("the power went")
        return train(self, batch, index)

    monkeypatch.setattr(ImageClassification, "training_step", fails)
    with pytest.raises(RuntimeError, match="power"):
        main([*TRAIN, "--trainer.max_steps=5"])
    assert step_of("best") == 2
    assert step_of("last") == 3


@pytest.mark.slow
def test_a_run_that_could_not_begin_leaves_its_name_free(folder, capsys):
    with pytest.raises(SystemExit):
        main([*TRAIN, "--model.optimizer=adamm"])
    assert "adam" in capsys.readouterr().err
    assert not (folder / "run").exists()
    main(TRAIN)
    assert (folder / "run/config.yaml").exists()
    with pytest.raises(SystemExit):
        main(TRAIN)
    assert step_of("last") == 3  # the refused call touched nothing


@pytest.mark.slow
def test_validate_writes_its_config_and_metrics(folder):
    segment = ["--config=segmentation/shapes", *FIT[2:]]
    main(["fit", *segment])
    more = [a for a in segment if "run_folder" not in a and "max_steps" not in a]
    main(["validate", *more, "--ckpt_path=run", "--run_folder=again"])
    record = json.loads((folder / "again/metrics-validate.json").read_text())
    assert "val/miou" in record["metrics"]  # known at the end alone
    assert (folder / "again/config.yaml").exists()


def test_a_checkpoint_calls_nothing_but_a_model(folder):
    main(TRAIN)
    content = torch.load("run/checkpoints/best.ckpt", weights_only=True)
    content["family"]["model"] = {
        "class_path": "pathlib.Path.touch",
        "init_args": {"self": "touched"},
    }
    torch.save(content, "bad.ckpt")
    with pytest.raises(UserError, match="cannot be found"):
        load_checkpoint("bad.ckpt", "ImageClassification")
    content["family"]["model"] = {"class_path": "os.mkdir", "init_args": {"path": "made"}}
    torch.save(content, "bad.ckpt")
    with pytest.raises(UserError, match=r"os.mkdir is no class of torch.nn.Module"):
        load_checkpoint("bad.ckpt", "ImageClassification")
    assert not (folder / "made").exists()


def test_an_older_checkpoint_lacks_what_was_added_since(folder):
    main(TRAIN)
    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert content["family"]["model"]["init_args"]["config"].pop("rotary_axes") == 1
    torch.save(content, "old.ckpt")
    main([*TRAIN, "--run_folder=more", "--ckpt_path=old.ckpt", "--trainer.max_steps=4"])
    assert (folder / "more/metrics-fit.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("config", ["translation/shapes", "detection/shapes"])
def test_mixed_precision_clips_gradients(config):
    """PyTorch's fused optimizers would not let Lightning do it."""
    small = [a for a in FIT[2:] if "batch_size" not in a]
    main(["fit", "--config", config, *small, "--trainer.precision=bf16-mixed"])
    assert step_of("last") == 3


@pytest.mark.slow
def test_compiled_training_leaves_no_trace_in_the_names():
    main([*TRAIN, "--model.compile=true", "--trainer.max_steps=2"])
    content = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert not [name for name in content["state_dict"] if "_orig_mod" in name]


def test_pictures_of_one_name_do_not_write_over_each_other():
    record = RunRecord(Path("made"))
    names = ["a.png", "a.jpg", "/x/a.jpg", "/y/a.jpg", "../a.jpg"]
    picture = Image.new("L", (2, 2))
    places = [record._picture(picture, "mask", {"file": name}, 0) for name in names]
    assert len(set(places)) == len(names) == len(list(Path("made/masks").iterdir()))


@pytest.mark.parametrize("monitor", [pytest.param("null", marks=pytest.mark.slow), "val/accuracy"])
def test_a_checkpoint_callback_of_the_config_stands_beside_ours(monitor):
    """By the same metric too, and with names like ours: commands take the best, not the newest."""
    Path("own.yaml").write_text(
        "trainer:\n  callbacks:\n  - class_path: pytorch_lightning.callbacks.ModelCheckpoint\n"
        f"    init_args: {{monitor: {monitor}, mode: max, every_n_train_steps: 1, save_top_k: -1,\n"
        "      filename: '{step}', save_last: true}\n"
    )
    main([*TRAIN, "--config=own.yaml"])
    assert step_of("best") == max(reversed(validated()), key=validated().get)
    assert step_of("last") == 3
    assert step_of("own/last") and list(Path("run/checkpoints/own").glob("step=*.ckpt"))
    Path("run/checkpoints/own/best.ckpt").write_bytes(b"of another")
    assert find_checkpoint("run") == Path("run/checkpoints/best.ckpt")
    assert find_checkpoint("run", "last") == Path("run/checkpoints/last.ckpt")
    Path("run/checkpoints/own/best.ckpt").unlink()
    main(["test", "run", "--trainer.accelerator=cpu", "--run_folder=tested"])
    record = json.loads(Path("tested/metrics-test.json").read_text())
    assert record["checkpoint"].endswith("checkpoints/best.ckpt")


def test_a_checkpoint_callback_of_the_config_leaves_the_folder_of_ours_alone(capsys):
    Path("own.yaml").write_text(
        "trainer:\n  callbacks:\n  - class_path: pytorch_lightning.callbacks.ModelCheckpoint\n"
        "    init_args: {dirpath: run/checkpoints}\n"
    )
    with pytest.raises(SystemExit):
        main([*TRAIN, "--config=own.yaml"])
    assert "dirpath=" in capsys.readouterr().err
