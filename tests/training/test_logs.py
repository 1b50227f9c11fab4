"""What is logged of training is the step's own, however long an epoch is."""

from __future__ import annotations

import csv

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from tasks.training.task import Task


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)


class Follow(Task):
    """Fit a line, and note what each batch gave."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(Line(), lr=0.1, schedule="constant", warmup_steps=0)
        self.found, self.shown = {}, []

    def loss(self, batch):
        x = batch.float()[:, None]
        loss = (self.model.line(x) - x.sin()).square().mean()
        return {"loss": loss, "double": 2 * loss}

    def training_step(self, batch, index):
        step, loss = self.global_step, super().training_step(batch, index)
        self.found.setdefault(step, []).append(float(loss))
        return loss


class Watch(pl.Callback):
    """What the bar and other callbacks see after each step."""

    def on_train_batch_end(self, trainer, module, *_):
        seen = trainer.progress_bar_metrics, trainer.callback_metrics
        values = (float(metrics.get("train/loss", -1)) for metrics in seen)
        module.shown.append((trainer.global_step - 1, *values))


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("rows", [12, 100])
def test_the_loss_of_a_step_is_logged_as_its_own(tmp_path, rows, accumulate, watched):
    task = Follow()
    trainer = pl.Trainer(
        max_steps=14,
        log_every_n_steps=7,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        logger=CSVLogger(tmp_path, name="", version="logs"),
        callbacks=[Watch(), *[EarlyStopping("train/loss", patience=99)] * watched],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, DataLoader(torch.arange(rows), 2))
    with (tmp_path / "logs/metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["train/loss"]]
    mean = {step: sum(parts) / len(parts) for step, parts in task.found.items()}
    assert [int(row["step"]) for row in logged] == [6, 13]
    for row in logged:
        assert float(row["train/loss"]) == pytest.approx(mean[int(row["step"])])
        assert float(row["train/double"]) == pytest.approx(2 * mean[int(row["step"])])
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(mean[13])
    ends = range(rows // 2 // accumulate - 1, 14, rows // 2 // accumulate)
    seen = range(14) if watched else {6, 13, *ends}
    whole = [shown for shown in task.shown[accumulate - 1 :: accumulate] if shown[0] in seen]
    assert len(whole) == len(seen)
    for step, bar, metric in whole:
        assert metric == pytest.approx(mean[step]), step
        assert bar == pytest.approx(mean[step]), step


def test_a_second_fit_begins_its_own_means(tmp_path):
    task = Follow()
    for value in (1.0, 3.0):
        trainer = pl.Trainer(
            max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False
        )
        trainer.fit(task, DataLoader(torch.full((4,), value), batch_size=4))
        assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(task.found[0][-1])
