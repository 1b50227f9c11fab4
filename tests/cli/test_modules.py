"""``family fit`` trains modules, data and tasks that it has never heard of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from tasks.cli import main
from tasks.data.shapes import CLASSES
from tasks.runs.checkpoints import load_checkpoint

SOURCE = '''
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tasks


class Net(nn.Module):
    """A plain model by the contract of classification."""

    def __init__(self, num_classes: int = 3, width: int = 4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.head = nn.Linear(width, num_classes)

    def forward(self, pixel_values):
        return self.head(self.conv(pixel_values).mean((2, 3)))


class Mine(pl.LightningModule):
    """A module of one's own, on data of ours."""

    def __init__(self, width: int = 4, classes: int = 8, lr: float = 1e-2):
        super().__init__()
        self.net, self.lr = Net(classes, width), lr

    def forward(self, pixel_values):
        return self.net(pixel_values)

    def training_step(self, batch, index):
        loss = F.cross_entropy(self(batch["pixel_values"]), batch["labels"])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, index):
        right = self(batch["pixel_values"]).argmax(-1) == batch["labels"]
        self.log("val/accuracy", right.float().mean())

    def predict_step(self, batch, index):
        return [{"label": i} for i in self(batch["pixel_values"]).argmax(-1).tolist()]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


class Around(Mine):
    """One that takes a network, and what no file holds as it is."""

    def __init__(self, net: nn.Module, place: Path | None = None):
        super().__init__()
        self.net, self.place = net, place

    def predict_step(self, batch, index):
        return self(batch["pixel_values"])


class Named(Mine):
    monitor = "val/accuracy"


class Watched(Mine):
    monitor = ("val/accuracy", "max")


def numbers():
    return TensorDataset(torch.randn(8, 3, 8, 8), torch.arange(8) % 3)


class WithLoaders(Mine):
    """One that brings its loaders along."""

    def __init__(self):
        super().__init__(classes=3)

    def train_dataloader(self):
        return DataLoader(numbers(), 4)

    def training_step(self, batch, index):
        return super().training_step({"pixel_values": batch[0], "labels": batch[1]}, index)

    validation_step = None


class Numbers(pl.LightningDataModule):
    """Data of one's own."""

    def train_dataloader(self):
        return DataLoader(numbers(), 4)

    def val_dataloader(self):
        return DataLoader(numbers(), 4)

    test_dataloader = val_dataloader


class Weighted(tasks.ImageClassification):
    """A task of one's own, built on ours."""

    def __init__(self, model=None, share: float = 0.5, **options):
        super().__init__(model, **options)
        self.share = share

    def loss(self, batch):
        return {"loss": self.share * super().loss(batch)["loss"]}
'''
TRAINER = {
    "max_steps": 3,
    "val_check_interval": 1,
    "check_val_every_n_epoch": None,
    "limit_val_batches": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
}
SHAPES = {
    "class_path": "tasks.ImageClassificationData",
    "init_args": {"examples": 40, "image_size": 16, "batch_size": 8},
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # A module's name of its own for each test, since Python keeps what it has imported.
    name = "mine_" + tmp_path.name.replace("-", "_")
    Path(f"{name}.py").write_text(SOURCE)
    Image.new("RGB", (20, 10), "red").save("red.png")
    return name


def fit(*arguments, **config):
    Path("config.yaml").write_text(yaml.safe_dump({**config, "trainer": TRAINER}))
    main(["fit", "--config", "config.yaml", "--run_folder", "run", *arguments])


def test_a_module_of_ones_own_on_our_data(folder, capsys):
    fit(model={"class_path": f"{folder}.Mine", "init_args": {"width": 6}}, data=SHAPES)
    record = json.loads(Path("run/metrics-fit.json").read_text())
    assert record["step"] == 3 and "val/accuracy" in record["metrics"]
    assert Path("run/checkpoints/last.ckpt").exists()
    main(["validate", "--config", "run/config.yaml", "--ckpt_path", "run", "--run_folder", "again"])
    again = json.loads(Path("again/metrics-validate.json").read_text())["metrics"]
    assert again["val/accuracy"] == record["metrics"]["val/accuracy"]
    capsys.readouterr()
    main(["classify", "run", "red.png"])
    said = capsys.readouterr().out
    assert any(name in said for name in CLASSES)
    loaded = load_checkpoint("run", "ImageClassification")
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(state[name], value) for name, value in loaded.model.state_dict().items())
    more = ["--ckpt_path=run", "--trainer.max_steps=5", "--run_folder=more"]
    main(["fit", "--config", "run/config.yaml", *more])
    assert json.loads(Path("more/metrics-fit.json").read_text())["step"] == 5


def test_the_best_by_a_metric_that_it_names(folder):
    fit(model={"class_path": f"{folder}.Watched"}, data=SHAPES)
    assert Path("run/checkpoints/best.ckpt").exists()


def test_loaders_of_its_own_and_no_data(folder):
    fit(model={"class_path": f"{folder}.WithLoaders"})
    assert json.loads(Path("run/metrics-fit.json").read_text())["step"] == 3
    assert Path("run/checkpoints/last.ckpt").exists()


def test_our_task_on_data_of_ones_own(folder, capsys):
    model = {"class_path": f"{folder}.Net", "init_args": {"width": 5}}
    task = {"class_path": "tasks.ImageClassification", "init_args": {"model": model}}
    fit(model=task, data={"class_path": f"{folder}.Numbers"})
    assert Path("run/checkpoints/best.ckpt").exists()
    loaded = load_checkpoint("run", "ImageClassification")
    assert loaded.model.conv.out_channels == 5
    main(["test", "--config", "run/config.yaml", "--ckpt_path=run", "--run_folder=tested"])
    assert "test/accuracy" in json.loads(Path("tested/metrics-test.json").read_text())["metrics"]


def test_a_task_built_on_ours(folder, capsys):
    model = {"class_path": f"{folder}.Net"}
    task = {"class_path": f"{folder}.Weighted", "init_args": {"model": model, "share": 0.25}}
    fit(model=task, data=SHAPES)
    record = torch.load("run/checkpoints/best.ckpt", weights_only=True)["family"]
    assert record["options"]["share"] == 0.25
    capsys.readouterr()
    main(["classify", "run", "red.png"])
    said = capsys.readouterr().out
    assert any(name in said for name in CLASSES)


def test_a_task_without_data(folder, capsys):
    with pytest.raises(SystemExit):
        fit(model={"class_path": "tasks.ImageClassification"})
    assert "ImageClassification needs data: give data.class_path." in capsys.readouterr().err


def test_a_module_around_a_network(folder, capsys):
    net = {"class_path": f"{folder}.Net", "init_args": {"num_classes": 8, "width": 3}}
    given = {"net": net, "place": "somewhere"}
    fit(model={"class_path": f"{folder}.Around", "init_args": given}, data=SHAPES)
    capsys.readouterr()
    main(["classify", "run", "red.png"])
    said = capsys.readouterr().out
    assert any(name in said for name in CLASSES)
    again = ["--config", "run/config.yaml", "--ckpt_path", "run", "--trainer.logger=false"]
    main(["predict", *again, "--run_folder", "made"])
    made = torch.load("made/predictions.pt", weights_only=True)
    assert made[0].shape == (8, 8)
    with pytest.raises(SystemExit):
        wider = "--model.init_args.net.init_args.width=5"
        main(["validate", *again, wider, "--run_folder", "none"])
    assert (
        "the checkpoint does not fit the config's model: size mismatch" in capsys.readouterr().err
    )
    assert not Path("none").exists()


def test_a_monitor_without_its_direction(folder, capsys):
    with pytest.raises(SystemExit):
        fit(model={"class_path": f"{folder}.Named"}, data=SHAPES)
    assert "Named.monitor='val/accuracy' must be a metric and how" in capsys.readouterr().err
