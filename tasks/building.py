"""Task and data of a config as ``family fit`` makes them, without a run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser

from tasks.config_errors import sentence
from tasks.data.base import FamilyData
from tasks.errors import UserError
from tasks.finetuning import load_source
from tasks.task import Task


def build_task(
    config: str, options: Sequence[str] = (), change: Callable[[Namespace], None] | None = None
) -> tuple[Task, FamilyData]:
    """The task of a config and its data, set up; the task's model is still to be configured.

    The task logs nothing, and its trainer (of the config's precision, on one device) never runs.

    Args:
        config: the path of a YAML file.
        options: laid over it, such as ``--data.root=FOLDER``.
        change: what is done to the parsed config.

    Raises:
        UserError: options that do not fit, in one sentence; a task or data that are not ours.
    """
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    parser.add_argument("--run_folder", type=str | None, default=None)
    parser.add_argument("--ckpt_path", type=str | None, default=None)
    parser.add_class_arguments(pl.Trainer, "trainer", instantiate=False)
    parser.add_lightning_class_args(pl.LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(pl.LightningDataModule, "data", subclass_mode=True)
    parsed = parser.parse_args(["--config", config, *options])
    if change is not None:
        change(parsed)
    pl.seed_everything(int(parsed.seed_everything), verbose=False)
    try:
        made = parser.instantiate_classes(parsed)
    except ValueError as error:
        raise UserError(sentence(str(error))) from error
    task, data = made.model, made.data
    if not isinstance(task, Task) or not isinstance(data, FamilyData):
        names = f"{type(task).__name__} and {type(data).__name__}"
        raise UserError(f"{config}: {names} are to be a Task and FamilyData of ours.")
    if task.pretrained is not None:
        load_source(task, data, task.pretrained, training=True)
    connect(task, data, parsed.trainer.precision)
    data.setup("fit")
    return task, data


def connect(task: Task, data: FamilyData, precision: Any) -> None:
    """Let a task find its data, and have nowhere to log to."""
    said = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = said.level
    said.setLevel(logging.ERROR)  # which devices there are
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options: Any = {"logger": False, "enable_checkpointing": False, "devices": 1}
        trainer = pl.Trainer(accelerator="auto", precision=precision, **options)
    said.setLevel(level)
    task.trainer = data.trainer = trainer
    trainer.datamodule = data  # type: ignore[attr-defined]
    for name in ("log", "log_dict", "log_training"):
        setattr(task, name, silent)


def silent(*_: Any, **__: Any) -> None:
    """What a task without a run logs."""
