"""Task and data of a config as ``family fit`` makes them, without a run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace

from tasks.cli.app import FamilyCLI
from tasks.data.base import FamilyData
from tasks.errors import UserError
from tasks.training.task import Task

ALONE = (
    "--trainer.devices=1",
    "--trainer.num_nodes=1",
    "--trainer.strategy=auto",
    "--trainer.deterministic=null",
    "--trainer.benchmark=null",
)
"""What lets a config of many devices be built on one, and leaves the settings of the process alone."""


class Dry(FamilyCLI):
    """Reads a config and builds task, data and trainer as ``family fit`` does, and stops there.

    Args:
        config: the path of a YAML file.
        options: laid over it, such as ``--data.root=FOLDER``.
        change: what is done to the parsed config.
    """

    def __init__(
        self,
        config: str,
        options: Sequence[str] = (),
        change: Callable[[Namespace], None] | None = None,
    ) -> None:
        self.change = change
        super().__init__(["fit", "--config", config, *options, *ALONE])

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"fit": FamilyCLI.subcommands()["fit"]}  # each takes a while to prepare

    def before_instantiate_classes(self) -> None:
        super().before_instantiate_classes()
        if self.change is not None:
            self.change(self.config["fit"])

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        if not isinstance(self.model, Task) or not isinstance(self.datamodule, FamilyData):
            names = f"{type(self.model).__name__} and {type(self.datamodule).__name__}"
            raise UserError(f"{names} are to be a Task and FamilyData of ours.")
        return super().instantiate_trainer(**kwargs)

    def _choose_folder(self) -> Path:
        return Path()  # nothing is written

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def build_task(
    config: str, options: Sequence[str] = (), change: Callable[[Namespace], None] | None = None
) -> tuple[Task, FamilyData]:
    """The task of a config and its data, set up; the task's model is still to be configured.

    Its trainer, of one device of this machine, never runs.

    Args:
        config, options, change: of :class:`Dry`.

    Raises:
        UserError: options that do not fit, in one sentence; a task or data that are not ours.
    """
    with quietly():
        made = Dry(config, ("--trainer.accelerator=auto", *options), change)
    task, data = made.model, made.datamodule
    task.trainer = data.trainer = made.trainer
    made.trainer.datamodule = data  # type: ignore[attr-defined]
    data.prepare_data()
    data.setup("fit")
    return task, data


@contextmanager
def quietly() -> Iterator[None]:
    """Without what Lightning says of the devices at hand."""
    names = ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in (*names, "lightning_fabric.utilities.seed")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="GPU available but not used")
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
