"""``--optimizer`` and ``--lr_scheduler``: LightningCLI's own, in the place of what a module says."""

from __future__ import annotations

import logging
from types import MethodType
from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningCLI, instantiate_class

from family.models.member import plain
from tasks.errors import UserError
from tasks.training.task import Task

log = logging.getLogger(__name__)


def plain_values(given: Any) -> Any:
    """A class path and its arguments as a checkpoint can hold them."""
    return plain(given.as_dict() if isinstance(given, Namespace) else given)


def use_given(
    module: pl.LightningModule, optimizer: dict[str, Any] | None, schedule: dict[str, Any] | None
) -> None:
    """Let a module train by an optimizer and a schedule that are given by class path.

    They are made when training begins, as most models have no weights before; over all weights that
    learn, in one group. As everywhere in Lightning, such a schedule steps at the end of an epoch.

    Args:
        optimizer, schedule: ``class_path`` and ``init_args``; None where none is given.

    Raises:
        UserError: a schedule alone; options of a task that apply to its own optimizer.
    """
    if optimizer is None:
        if schedule is not None:
            raise UserError(
                f"--lr_scheduler {schedule['class_path']} needs --optimizer, whose rate it sets; a "
                "task's own is chosen by model.schedule."
            )
        return
    path = optimizer["class_path"]
    for option, own, given in (
        ("optimizer", "optimizer=muon", optimizer),
        ("lr_scheduler", "schedule", schedule),
    ):
        if given is not None and given["class_path"].startswith("tasks."):
            raise UserError(
                f"--{option} {given['class_path']} is a task's own: choose it by model.{own}."
            )
    if isinstance(module, Task):
        if path.endswith(".SparseAdam"):
            raise UserError(
                f"--optimizer {path} takes sparse gradients, which none of our models has."
            )
        if module.layer_decay is not None:
            raise UserError(
                f"model.layer_decay has no effect on --optimizer {path}: leave out one."
            )
        log.warning(
            "--optimizer %s takes the place of model.optimizer, lr, weight_decay, betas and schedule: "
            "its own options say them, such as --optimizer.lr.",
            path,
        )
        # A checkpoint says by what it was trained; to go on by another is refused.
        module.options = {**module.options, "optimizer": path}
        module.given = {
            "optimizer": plain_values(optimizer),
            "lr_scheduler": plain_values(schedule),
        }

    def configure_optimizers(module: pl.LightningModule) -> Any:
        learn = [parameter for parameter in module.parameters() if parameter.requires_grad]
        try:
            made = instantiate_class(learn, optimizer)
        except (TypeError, ValueError) as error:
            raise UserError(f"--optimizer {path}: {error}") from error
        if schedule is None:
            return made
        try:
            rates = instantiate_class(made, schedule)
        except (TypeError, ValueError) as error:
            raise UserError(f"--lr_scheduler {schedule['class_path']}: {error}") from error
        return LightningCLI.configure_optimizers(module, made, rates)

    module.configure_optimizers = MethodType(configure_optimizers, module)  # type: ignore[method-assign]
