"""Training with weights that are shared out over processes."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn

from family.checks import first_line
from family.sharding import gather, shard, share_again
from tasks.errors import UserError
from tasks.training.averaging import SharedAveraging
from tasks.training.validating import Validating, exchanges


class FSDP2(ModelParallelStrategy):
    """Lightning's strategy for PyTorch's FSDP2: every process holds a part of weights, gradients and the
    optimizer's state. ``trainer.strategy=fsdp2`` is this one. The first process gathers each checkpoint into one
    file, as of any other run.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **options)

    def setup_environment(self) -> None:
        assert self.cluster_environment is not None and self.lightning_module is not None
        averaging(self.lightning_module.trainer)
        self._data_parallel_size = self.num_processes * self.num_nodes
        super().setup_environment()

    def share_out(self, learner: nn.Module) -> None:
        """What is trained, model by model.

        Raises:
            UserError: what cannot be shared out.
        """
        models = list(learner.values()) if isinstance(learner, nn.ModuleDict) else [learner]
        held = [{id(parameter) for parameter in model.parameters()} for model in models]
        if len(set().union(*held)) < sum(map(len, held)):
            names = " and a ".join(type(model).__name__ for model in models)
            raise UserError(
                f"trainer.strategy=fsdp2: a {names} share weights, which would come apart: choose ddp."
            )
        try:
            for model in models:
                shard(model, self.device_mesh["data_parallel"])
        except ValueError as error:
            raise UserError(f"trainer.strategy=fsdp2: {first_line(error)}") from error


class Gathered(pl.Callback):
    """Whole weights while a run validates, tests or predicts: processes have unequal shares of the examples
    and decode texts of unequal lengths, so none may wait for another in the midst of it."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        same_buffers(
            trainer.lightning_module
        )  # as DDP does: those of a batch norm differ among processes

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        same_buffers(module)
        gather(module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.strategy.barrier()
        share_again(module)

    on_test_start = on_predict_start = on_validation_start  # type: ignore[assignment]
    on_test_end = on_predict_end = on_validation_end  # type: ignore[assignment]


def same_buffers(module: nn.Module) -> None:
    """Those of the first process."""
    for buffer in module.buffers():
        dist.broadcast(buffer, 0)


def gathering(trainer: Any) -> None:
    """Let a trainer gather what it shares out, where it does; once."""
    known = [type(found) for found in trainer.callbacks]
    if isinstance(trainer.strategy, FSDP2) and Gathered not in known:
        # Weights that take turns with their average (Validating) do so before they are whole.
        trainer.callbacks.insert(known.index(Validating) + 1, Gathered())


def averaging(trainer: Any) -> None:
    """Let averages of weights be kept in parts.

    Raises:
        UserError: one that exchanges weights in a way of its own.
    """
    for place, found in enumerate(trainer.callbacks):
        if not isinstance(found, WeightAveraging) or isinstance(found, SharedAveraging):
            continue
        if not exchanges(found):
            raise UserError(
                f"trainer.strategy=fsdp2 shares the weights out, and {type(found).__name__} exchanges whole "
                "ones with its average: leave that callback out, or choose ddp."
            )
        trainer.callbacks[place] = SharedAveraging(found)
