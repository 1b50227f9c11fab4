"""A config at one length and batch size: its model, an optimizer and a batch that is large enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse import Namespace
from pytorch_lightning.utilities import move_data_to_device
from torch import Tensor

from family.generation import Generation
from tasks.cli.building import build_task
from tasks.compare.shares import part
from tasks.data.base import FamilyData
from tasks.training.optim import build_optimizer
from tasks.training.task import Task

BATCHES = 8
"""Batches of the config's own loader by which the data's time is told."""
TEXT_LENGTHS = (64, 128, 256)


@dataclass
class Variant:
    """A config that is measured: its task, and a batch of its data to make others of."""

    name: str
    task: Task
    data: FamilyData
    batch: dict[str, Any]
    row_seconds: float
    """In which the loader makes one row of its own length."""

    @property
    def sees(self) -> bool:
        """Whether lengths are sides of pictures; else tokens."""
        return "pixel_values" in self.batch


@dataclass
class Case:
    """A variant at one length and batch size, ready to be run."""

    variant: Variant
    backward: Callable[[], None]
    """Forward and backward pass."""
    update: Callable[[], None]
    """The optimizer's step."""
    decode: Callable[[], Any] | None
    optimizer: torch.optim.Optimizer

    def train(self) -> None:
        """A training step; nothing is clipped."""
        self.backward()
        self.update()


def open_variant(name: str, path: str, options: Sequence[str], longest: int) -> Variant:
    """Task and data of a config, with room for the longest sequence, and the time of its loader."""
    task, data = build_task(path, options, partial(make_room, tokens=longest + 1))
    loader = iter(data.loader("train"))
    batch = next(loader)
    rows, start = 0, time.perf_counter()
    for _ in range(BATCHES):
        more = next(loader, None)
        rows += 0 if more is None else rows_of(more)
    seconds = (time.perf_counter() - start) / rows if rows else 0.0
    return Variant(name, task, data, batch, seconds)


def make_room(parsed: Namespace, tokens: int) -> None:
    """Raise ``max_tokens`` of the models of a parsed config."""
    for key, value in list(parsed.items()):
        if key.startswith("model.init_args.") and key.endswith(".max_tokens"):
            parsed[key] = max(value, tokens)


def own_lengths(variant: Variant) -> list[int]:
    """Default lengths: fixed ones of texts, multiples of the data's own size of pictures."""
    if not variant.sees:
        return list(TEXT_LENGTHS)
    return [times * variant.batch["pixel_values"].shape[-2] for times in (1, 2, 3)]


def make_case(variant: Variant, length: int, size: int) -> Case:
    """Model, optimizer and batch of a variant, on the device of its task."""
    task, device = variant.task, variant.task.trainer.strategy.root_device
    arguments = variant.data.model_arguments
    if "image_size" in arguments:
        arguments = {**arguments, "image_size": (length, length)}
    task.renew(arguments)
    task.to(device).train()
    batch = move_data_to_device(grown(variant.batch, length, size), device)
    optimizer = build_optimizer(
        task.optimizer_name,
        task.learner,
        task.lr,
        task.weight_decay,
        task.betas,
        "mixed" not in str(task.trainer.precision),
        task.layer_decay,
    )
    case = Case(
        variant,
        partial(backward, task, batch, optimizer),
        partial(update, optimizer),
        decoder(task.model, batch, length),
        optimizer,
    )
    case.train()  # a length that the model refuses shows now
    return case


def backward(task: Task, batch: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Forward and backward pass of a training step."""
    task.learner.train()
    optimizer.zero_grad()
    with part("loss"), task.trainer.precision_plugin.train_step_context():
        loss = task.loss(batch)["loss"]
    loss.backward()


def update(optimizer: torch.optim.Optimizer) -> None:
    with part("optimizer"):
        optimizer.step()


def decoder(model: Any, batch: dict[str, Any], length: int) -> Callable[[], Any] | None:
    """Greedy decoding of ``length`` tokens, from one token or from a source of ``length``."""
    if not hasattr(model, "generate"):
        return None
    inputs: tuple[Any, ...] = (batch["input_ids"][:, :1],) if "input_ids" in batch else ()
    if "source" in batch:
        inputs = (batch["source"], batch["source_mask"])

    model.generation = Generation(stop_ids=())  # all of the length, whatever comes

    def decode() -> None:
        model.eval()
        model.generate(*inputs, max_new_tokens=length)

    return decode


def grown(batch: dict[str, Any], length: int, size: int) -> dict[str, Any]:
    """A batch of so many rows of such a length, without padding, made of those of another.

    Rows and tokens repeat where there are too few, and pictures become larger: what they show does
    not matter to the time that they take.
    """
    sees = "pixel_values" in batch
    rows = [i % rows_of(batch) for i in range(size)]
    made: dict[str, Any] = {}
    for name, value in batch.items():
        if not isinstance(value, Tensor):
            made[name] = [value[i] for i in rows]
            continue
        value = value[rows]
        if sees and value.dim() >= 3:
            value = as_picture(value, length)
        elif not sees and value.dim() == 2 and not value.is_floating_point():
            value = value[:, torch.arange(length) % value.shape[1]]
        made[name] = torch.ones_like(value) if value.dtype == torch.bool else value
    return made


def as_picture(value: Tensor, side: int) -> Tensor:
    """Pixels ``(rows, channels, height, width)``, or masks ``(rows, height, width)``, at another size."""
    if value.dim() == 4:
        return F.interpolate(value, (side, side), mode="bilinear")
    down, across = (torch.arange(side) * old // side for old in value.shape[-2:])
    return value[:, down][:, :, across]


def rows_of(batch: dict[str, Any]) -> int:
    """Examples of a batch."""
    return len(next(value for value in batch.values() if isinstance(value, Tensor)))


def config_name(path: str) -> str:
    """TASK/NAME of a config's path."""
    file = Path(path)
    return f"{file.parent.name}/{file.stem}" if file.parent.name else file.stem
