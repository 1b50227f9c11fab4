"""A data set of the user's own, by its class path; its fields as they are documented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

import family
import tasks
from tasks.cli import main
from tasks.errors import UserError
from tasks.training.task import Task

SOURCE = """
import torch
from torch.utils.data import Dataset


class Photos(Dataset):
    def __init__(self, count: int = 12, pad: bool = False):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return {"pixel_values": torch.full((3, 16, 16), i / 10), "labels": i % 3}
"""


def test_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos_of_mine.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    small = ("dim=16", "depth=1", "heads=2", "ffn_dim=16")
    main(
        [
            *("fit", "--config=image_classification/shapes", "--run_folder=run"),
            *("--data=tasks.OwnData", "--data.batch_size=4", "--data.train=photos_of_mine.Photos"),
            *("--data.val=photos_of_mine.Photos", "--data.val.count=6"),
            "--data.decides={image_size: 16}",
            "--data.labels=[cat, dog, cow]",
            *(f"--model.model.config.{one}" for one in small),
            *(
                "--trainer.max_steps=2",
                "--trainer.val_check_interval=2",
                "--trainer.accelerator=cpu",
            ),
            *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
        ]
    )
    assert "val/accuracy" in json.loads(Path("run/metrics-fit.json").read_text())["metrics"]
    found = family.load("run")
    assert found.labels == ["cat", "dog", "cow"] == found.model.labels
    assert found.model.head.out_features == 3


class Ragged(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int):
        return torch.ones(i + 1)

    def collate(self, examples):
        return torch.nn.utils.rnn.pad_sequence(examples, batch_first=True)


def test_loaders():
    data = tasks.OwnData(TensorDataset(torch.arange(40)), test=Ragged(), batch_size=4)
    order = torch.cat([batch[0] for batch in data.train_dataloader()])
    assert sorted(order.tolist()) == list(range(40)) != order.tolist()
    assert next(iter(data.test_dataloader())).shape == (4, 4) and data.val_dataloader() == []
    with pytest.raises(UserError, match=r"data\.val is not given"):
        data.loader("val")
    with pytest.raises(UserError, match=r"data\.train: TensorDataset has no example"):
        tasks.OwnData(TensorDataset(torch.ones(0))).train_dataloader()


class Named(Dataset):
    classes = ("cat", "dog")

    def __len__(self) -> int:
        return 2


def test_names_of_classes():
    assert tasks.OwnData(Named(), decides={"num_classes": 2}).class_names == ["cat", "dog"]
    assert tasks.OwnData(Named(), decides={"num_classes": 3}).class_names is None
    assert tasks.OwnData(Named(), labels=["a", "b", "c"]).model_arguments == {"num_classes": 3}
    with pytest.raises(UserError, match=r"data\.labels has 2 names, but .* num_classes: 3"):
        tasks.OwnData(Named(), decides={"num_classes": 3}, labels=["a", "b"])
    with pytest.raises(UserError, match=r"data\.labels has 'a' twice"):
        tasks.OwnData(Named(), labels=["a", "a"])


def test_the_fields_of_every_task_are_documented():
    text = (Path(__file__).parents[2] / "docs/data.md").read_text("utf-8")
    for name in dir(tasks):
        found = getattr(tasks, name)
        if isinstance(found, type) and issubclass(found, Task) and found.fields:
            assert f"| `{name}` | {', '.join(f'`{one}`' for one in found.fields)} |" in text
