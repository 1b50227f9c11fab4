"""What a step counts is known at its first batch, whatever loader gives them; and nothing is lost by looking."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tasks.training.task import Task

SIZES = (3, 1, 4, 1, 5)


class Spotted(Task):
    fields = ("x",)

    def __init__(self, model, **options):
        super().__init__(model, warmup_steps=0, schedule="constant", **options)
        self.found = []

    def term_counts(self, batch):
        return {"rows": len(batch["x"]), "batches": 1}

    def loss(self, batch):
        self.found.append((len(batch["x"]), *map(float, batch["whole"].values())))
        return {"loss": self.model(batch["x"]).sum() / batch["whole"]["rows"]}


class Loader:
    """A loader that does not know its length."""

    def __iter__(self):
        return ((torch.full((size, 2), float(size)),) for size in SIZES)


class Sized(Loader):
    def __len__(self):
        return len(SIZES)


def fitted(loader, folder, parts, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "default_root_dir": folder}
    task = Spotted(nn.Linear(2, 1), optimizer="sgd")
    pl.Trainer(max_epochs=2, accumulate_grad_batches=parts, **quiet, **options).fit(task, loader)
    return task.found


@pytest.mark.parametrize("loader", [Loader, Sized])
def test_a_step_is_known_at_its_first_batch(loader, tmp_path):
    """Three batches make a step, and the two that an epoch ends with another; in each of two epochs."""
    means = [8 / 3] * 3 + [3.0] * 2
    expected = [(size, mean, 1.0) for size, mean in zip(SIZES, means, strict=True)]
    for found, wanted in zip(fitted(loader(), tmp_path, 3), expected * 2, strict=True):
        assert found == pytest.approx(wanted)


def test_batches_behind_the_last_are_of_no_step(tmp_path):
    found = fitted(Sized(), tmp_path, 3, limit_train_batches=4)
    assert found[3] == found[7] == (1, 1.0, 1.0) and len(found) == 8


def test_one_batch_a_step_asks_for_none(tmp_path):
    with pytest.raises(KeyError, match="whole"):
        fitted(Sized(), tmp_path, 1)


class Rows(Task):
    fields = ("x",)

    def loss(self, batch):
        return {"loss": self.model(batch["x"]).square().mean()}

    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        self.found.append(float(loss.detach()))
        return loss


def test_a_fit_counts_as_if_there_was_none_before(tmp_path):
    """One of batches of 64 rows leaves nothing to one of 2 rows."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "default_root_dir": tmp_path}
    task = Rows(nn.Linear(2, 1), optimizer="sgd", lr=0.0, warmup_steps=0, schedule="constant")
    found = []
    for rows in (2, 64, 2):
        task.found = []
        loader = DataLoader(TensorDataset(torch.ones(2 * rows, 2)), rows)
        pl.Trainer(max_epochs=1, accumulate_grad_batches=2, **quiet).fit(task, loader)
        found.append(task.found)
    assert found[0] == pytest.approx(found[1]) and found[0] == found[2]
