"""Losses, dropout, other random numbers and buffers of a resumed run are those of the unbroken one, wherever it was cut."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from test_place import Numbers

from tasks.training.repeating import Repeating
from tasks.training.task import Task


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.layers.append(nn.Linear(8, 1))


class Draws(Task):
    """Dropout, noise by numpy and ``random``, means of a batch norm, and batches that count very unequally."""

    def __init__(self):
        torch.manual_seed(3)
        super().__init__(Noisy, lr=0.1, schedule="constant", warmup_steps=0)
        self.seen = []

    def loss(self, batch):
        x = batch["rows"].float()[:, None] / 22 + np.random.rand() + random.random()
        return {"loss": (self.model.layers(x) - 1).square().mean()}

    def count(self, batch):
        return 1 + int(batch["rows"][0])

    def training_step(self, batch, index):
        loss = super().training_step(batch, index)
        self.seen.append((batch["rows"].tolist(), float(loss.detach())))
        return loss


class Each(pl.Callback):
    """A checkpoint after each batch, be it in the midst of a step."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0

    def on_train_batch_end(self, trainer, *batch):
        self.count += 1
        trainer.save_checkpoint(self.folder / f"{self.count}.ckpt")


def fit(folder, several, resume=None):
    task = Draws()
    trainer = pl.Trainer(
        max_steps=5,
        accumulate_grad_batches=several,
        accelerator="cpu",
        logger=False,
        callbacks=[Each(folder)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    torch.manual_seed(5 if resume is None else 6)  # the run's own, which its checkpoints tell
    trainer.fit(task, Numbers(), ckpt_path=resume)
    return task


@pytest.mark.parametrize("several", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_run_goes_on_with_the_same_random_numbers_and_buffers(several, tmp_path):
    whole = fit(tmp_path, several)
    for batch in (1, 2, 3):
        rest = fit(tmp_path / "rest", several, tmp_path / f"{batch}.ckpt")
        assert rest.seen == whole.seen[batch // several * several :], batch
        for name, value in whole.state_dict().items():
            assert torch.equal(rest.state_dict()[name], value), (batch, name)


def test_processes_and_runs_of_other_seeds_draw_other_numbers():
    class Trainer:
        global_step, global_rank = 0, 0

    drawn = set()
    for seed, process, step in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        callback, trainer = Repeating(), Trainer()
        callback.load_state_dict({"seed": seed})
        trainer.global_rank, trainer.global_step = process, step
        for _ in range(2):  # batches of one step
            callback.on_train_batch_start(trainer, pl.LightningModule(), None, 0)
            drawn.add((float(torch.rand(())), np.random.rand(), random.random()))
    assert len({row[0] for row in drawn}) == len({row[1] for row in drawn}) == 8
    assert len({row[2] for row in drawn}) == 8
