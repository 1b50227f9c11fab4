"""What a validation within training is: of one state of weights, apart from training, and of finite loss."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities.seed import isolate_rng

from family.sharding import held
from tasks.training.finite import check_finite

SWAPS = ("on_validation_epoch_start", "on_validation_epoch_end")


class Validating(pl.Callback):
    """Comes first of all callbacks, so that the others, and what a module does in its hooks, find it so.

    *Weights.* All that a validation shows is of one state of weights. Where they are averaged (EMA), that is
    the average, also in what a module does as the validation begins and ends, when Lightning has it
    the weights of training. Until the first are averaged, it is these themselves, and no copy of the
    beginning; a checkpoint and the end of training take them too. A callback that overrides how weights
    are exchanged is left to itself.

    *Random numbers.* Each validation draws the same ones, the building of its loaders included, and training
    goes on as if none had been drawn: what is learnt does not depend on how often one validates.

    *Loss.* A run whose ``val/loss`` is not finite ends, before anything is made of such weights.

    Raises:
        NotFiniteError: see :func:`~tasks.training.finite.check_finite`.
    """

    def __init__(self) -> None:
        self.averages: list[WeightAveraging] = []
        self.exchanged = False

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        loop: Any = trainer.fit_loop.epoch_loop.val_loop
        if not isinstance(loop.run, partial):
            loop.run = partial(run_apart, loop.run)
        self.averages = [
            found
            for found in trainer.callbacks  # type: ignore[attr-defined]
            if exchanges(found)
        ]
        for average in self.averages:
            for hook in SWAPS:
                setattr(average, hook, nothing)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._follow(module)
            self._exchange(module, True)

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")
        if trainer.state.fn == "fit" and not trainer.sanity_checking and loss is not None:
            check_finite({"val/loss": loss}, trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._exchange(module, False)

    def on_exception(
        self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._exchange(module, False)  # in the midst of a validation

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._follow(module)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._follow(module)

    def _exchange(self, module: pl.LightningModule, exchanged: bool) -> None:
        if exchanged != self.exchanged:
            self.exchanged = exchanged
            for average in self.averages:
                average._swap_models(module)

    @torch.no_grad()
    def _follow(self, module: pl.LightningModule) -> None:
        """Let an average of nothing yet be the weights of now."""
        for average in self.averages:
            kept: Any = average._average_model
            if kept is not None and not self.exchanged and not int(kept.n_averaged):
                theirs = chain(kept.module.parameters(), kept.module.buffers())
                for old, new in zip(theirs, held(module), strict=True):
                    old.copy_(new)


def validating(trainer: Any) -> None:
    """Let the validations of a trainer be so, once."""
    if not any(isinstance(found, Validating) for found in trainer.callbacks):
        trainer.callbacks.insert(0, Validating())


def exchanges(callback: Any) -> bool:
    """Whether it is an average of weights that stand in the place of others in the way of Lightning's own."""
    return isinstance(callback, WeightAveraging) and all(
        getattr(type(callback), hook) is getattr(WeightAveraging, hook) for hook in SWAPS
    )


def nothing(*_: Any) -> None:
    pass


def run_apart(run: Callable[[], Any]) -> Any:
    with apart():
        return run()


@contextmanager
def apart() -> Iterator[None]:
    """Within it, torch, numpy and ``random`` draw what the run's seed decides; then all goes on as if nothing
    had been drawn."""
    seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
    with isolate_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
