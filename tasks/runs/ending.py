"""How a run ends: validated where it ends, all its processes together, and told to leave between two batches."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.utilities.exceptions import SIGTERMException

from tasks.data.base import FamilyData

LEFT = 128 + signal.SIGTERM
"""The exit code of a command that was told to leave, as a shell has it of one that the signal ended."""
TOGETHER = 10
"""Batches after which processes ask each other, where that waits for an accelerator."""


class LastValidation(pl.Callback):
    """Let a run that ends be validated where it ends, wherever its intervals fall."""

    def __init__(self) -> None:
        self.steps: int | None = None
        """Of a run that goes on from its last step, where it ends; Lightning would not begin."""

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if getattr(module, "validated_again", False) and trainer.max_steps > 0:
            self.steps = trainer.max_steps
            trainer.fit_loop.epoch_loop.max_steps += 1

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Of a run that was cut in its last validation there is that to be made, and no batch.
        if trainer.fit_loop.restarted_mid_epoch and (self.steps is not None or ends(trainer)):
            trainer.val_check_batch = 1
            validate_in_every_epoch(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.steps is not None and not trainer.sanity_checking:
            trainer.fit_loop.epoch_loop.max_steps, self.steps = self.steps, None

    def on_train_batch_end(self, trainer: pl.Trainer, *batch: Any) -> None:
        if trainer.should_stop or ends(trainer):
            # Lightning validates before it stops, in epochs that are validated at all.
            trainer.should_stop = True
            validate_in_every_epoch(trainer)


def ends(trainer: Any) -> bool:
    """Whether no batch is left of a run, by its limits of steps and epochs."""
    if 0 < trainer.max_steps <= trainer.global_step:
        return True
    epochs = trainer.max_epochs if trainer.max_epochs is not None else -1
    last_epoch = 0 < epochs <= trainer.current_epoch + 1
    return bool(last_epoch and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)


def validate_in_every_epoch(trainer: pl.Trainer) -> None:
    if trainer.check_val_every_n_epoch is not None:
        trainer.check_val_every_n_epoch = 1


@contextmanager
def ending_together(trainer: pl.Trainer) -> Iterator[None]:
    """Let the first process, where it fails, end those that it has started.

    They would wait for it, some for ever. Where another fails, Lightning ends the first; torchrun and
    SLURM see to theirs. Signals then mean again what they did before, which Lightning sees to unless a
    callback fails, too, in the end.
    """
    try:
        yield
    except BaseException:
        connector: Any = trainer._signal_connector
        connector.teardown()
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL)  # who waits for others hears nothing less
        raise


class Leaving(pl.Callback):
    """Upon SIGTERM leave after the batch that is at work, in all processes at the same one.

    In training and its validations Lightning then raises ``SIGTERMException``, by which the last state is kept
    (:class:`~tasks.runs.folder.LastCheckpoint`). Its own handler would enter a collective wherever the signal
    finds it, in the midst of another. In the validation of loaders that are not ours, of which processes may
    get unequal numbers of batches, several wait for its end. A run that has made its last batch ends as it would.
    """

    def __init__(self) -> None:
        self.told = False

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self.told = False

        def tell(number: int, frame: Any) -> None:
            launcher = trainer.strategy.launcher
            if not self.told and isinstance(launcher, _SubprocessScriptLauncher):
                launcher.kill(signal.SIGTERM)
            self.told = True

        connector: Any = trainer._signal_connector
        connector._sigterm_notifier_fn = tell

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        self._ask(trainer, index)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        index: int,
        loader: int = 0,
    ) -> None:
        if trainer.world_size == 1 or isinstance(getattr(trainer, "datamodule", None), FamilyData):
            self._ask(trainer, index)

    def on_test_batch_end(self, trainer: pl.Trainer, *batch: Any) -> None:
        self.on_validation_batch_end(trainer, *batch)

    def on_predict_batch_end(self, trainer: pl.Trainer, *batch: Any) -> None:
        if self.told:
            raise SIGTERMException  # Lightning would go on to the end

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.should_stop or ends(trainer):
            trainer._signal_connector.received_sigterm = False

    def _ask(self, trainer: pl.Trainer, index: int) -> None:
        """Let all processes know whether one was told."""
        told, strategy = self.told, trainer.strategy
        if trainer.world_size > 1:
            if strategy.root_device.type != "cpu" and index % TOGETHER:
                return
            told = strategy.reduce_boolean_decision(told, all=False)
        trainer._signal_connector.received_sigterm = told


def leaving(trainer: Any) -> None:
    """Let a trainer leave so, once."""
    if not any(isinstance(found, Leaving) for found in trainer.callbacks):
        trainer.callbacks.append(Leaving())
