"""The first steps of a config, and one batch over and over: whether it learns, and what a run would cost."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from tasks.cli.building import quietly
from tasks.compare.cases import rows_of
from tasks.data.base import FamilyData
from tasks.errors import NotFiniteError, UserError
from tasks.training.task import Task
from tasks.training.trainer import Trainer

REAL = 2
"""Steps on batches as training has them."""
SAME = 30
"""Steps on the last of these."""
WARM = 5
"""Steps until the rate is the config's own."""
MOST = 60.0
"""Seconds after which no further step is begun."""


@dataclass
class Trial:
    """What came of it."""

    parameters: int = 0
    rows: int = 0
    """Of a batch."""
    batches: int = 0
    """Of an epoch."""
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Of each step."""
    load_seconds: float = 0.0
    """Of making a batch."""
    bytes: int = 0
    """The most memory that was held: of the accelerator, or of this process."""
    not_finite: list[str] = field(default_factory=list)
    """Fields of batches with numbers that are not finite."""
    error: str = ""

    @property
    def step_seconds(self) -> float:
        return statistics.median(self.seconds[1:] or self.seconds or [0.0])

    @property
    def same(self) -> list[float]:
        """The losses of the one batch."""
        return self.losses[REAL - 1 :]

    @property
    def ends(self) -> tuple[float, float]:
        """The loss of the one batch at the beginning and at the end; means of a few steps, for dropout."""
        few = max(1, min(3, len(self.same) // 2))
        return statistics.mean(self.same[:few]), statistics.mean(self.same[-few:])


class Batches:
    """Some batches, and the last of them again and again."""

    def __init__(self, some: list[Any]) -> None:
        self.some = some

    def __len__(self) -> int:
        return len(self.some) + SAME

    def __iter__(self) -> Iterator[Any]:
        yield from self.some
        for _ in range(SAME):
            yield self.some[-1]


class Watch(pl.Callback):
    """Time and loss of each step."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.began, self.start = trial, time.perf_counter(), 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *batch: Any) -> None:
        parts = module.taught[1]
        self.trial.losses.append(float(parts[-1]["loss"]) if parts else float("nan"))
        now = time.perf_counter()
        self.trial.seconds.append(now - self.start)
        if now - self.began > MOST and len(self.trial.losses) >= REAL:
            trainer.should_stop = True


def try_out(task: Task, data: FamilyData, trainer: Any) -> Trial:
    """Train for a few steps, in no folder and without validation; the task and its data are used up.

    Args:
        data: set up.
        trainer: the options of the config's trainer, of which accelerator, precision and clipping count.
    """
    trial, some = Trial(), []
    loader = data.train_dataloader()
    trial.batches = len(loader)
    batches, start = iter(loader), time.perf_counter()
    for _ in range(REAL):
        if (batch := next(batches, None)) is not None:
            some.append(batch)
    trial.load_seconds = (time.perf_counter() - start) / max(1, len(some))
    if not some:
        trial.error = "the train split makes no batch: data.batch_size may be larger than it."
        return trial
    some = [some[0]] * (REAL - len(some)) + some
    trial.rows = rows_of(some[-1])
    trial.not_finite = sorted({name for batch in some for name in not_finite(batch)})
    again: Any = data
    again.train_dataloader = lambda: Batches(some)
    task.schedule, task.warmup_steps = "constant", WARM
    with quietly():
        made = Trainer(
            accelerator=trainer.accelerator or "auto",
            precision=trainer.precision,
            devices=1,
            gradient_clip_val=trainer.gradient_clip_val,
            gradient_clip_algorithm=trainer.gradient_clip_algorithm,
            max_steps=REAL + SAME,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[Watch(trial)],
        )
        try:
            made.fit(task, datamodule=data)
        except NotFiniteError as error:
            trial.error = str(error)
        except UserError as error:
            trial.error = f"training does not begin: {error}"
    if task.model is not None:
        trial.parameters = sum(p.numel() for p in task.model.parameters())
    if task.device.type == "cuda":
        trial.bytes = torch.cuda.max_memory_allocated(task.device)
    else:
        trial.bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return trial


def not_finite(values: Any, name: str = "") -> list[str]:
    """The fields of a batch with numbers that are not finite."""
    if isinstance(values, Tensor):
        good = not values.is_floating_point() or bool(values.isfinite().all())
        return [] if good else [name]
    if isinstance(values, dict):
        return [bad for key, one in values.items() for bad in not_finite(one, str(key))]
    if isinstance(values, list | tuple):
        return [bad for one in values for bad in not_finite(one, name)]
    return []


def steps_of(trainer: Any, batches: int) -> int | None:
    """The optimizer's steps of a run; None where nothing ends it."""
    each = -(-batches // (trainer.accumulate_grad_batches or 1))
    ends = [trainer.max_steps] if trainer.max_steps and trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        ends.append(trainer.max_epochs * each)
    return min(ends, default=None)
