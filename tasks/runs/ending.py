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

    def on_train_batch_end(self, trainer: pl.Trainer, *batch: Any) -> None:
        loop: Any = trainer.fit_loop
        epochs = trainer.max_epochs if trainer.max_epochs is not None else -1
        last_epoch = 0 < epochs <= trainer.current_epoch + 1
        ends = 0 < trainer.max_steps <= trainer.global_step
        ends |= last_epoch and loop.epoch_loop.batch_progress.is_last_batch
        if ends or trainer.should_stop:
            # Lightning validates before it stops, in epochs that are validated at all.
            trainer.should_stop = True
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
