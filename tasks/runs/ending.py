"""How a run ends: validated where it ends, and all its processes together."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher


class LastValidation(pl.Callback):
    """Let a run that ends be validated where it ends, wherever its intervals fall."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Of a run that was cut in its last validation there is that to be made, and no batch.
        if trainer.fit_loop.restarted_mid_epoch and ends(trainer):
            trainer.val_check_batch = 1
            validate_in_every_epoch(trainer)

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
    SLURM see to theirs.
    """
    try:
        yield
    except BaseException:
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL)  # who waits for others hears nothing less
        raise
