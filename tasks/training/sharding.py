"""Training with weights that are shared out over processes."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, Shard, zeros

from family.checks import first_line
from family.pretrained.parts import SHARDS, fill, in_parts, tensors
from family.sharding import gather, shard, share_again
from tasks.errors import UserError, user_errors
from tasks.runs.parts import divided, unused, write_parts
from tasks.runs.writing import WholeCheckpoints
from tasks.training.averaging import SharedAveraging
from tasks.training.validating import Validating, exchanges


class FSDP2(ModelParallelStrategy):
    """Lightning's strategy for PyTorch's FSDP2: every process holds a part of weights, gradients and the
    optimizer's state. ``trainer.strategy=fsdp2`` is this one. The first process gathers each checkpoint into one
    file, as of any other run. Either kind of checkpoint is gone on from, with any number of processes.

    Args:
        sharded: nothing is gathered for a checkpoint (``trainer.strategy=fsdp2_sharded``): each process
            writes its own part into a folder beside the file, see :mod:`family.pretrained.parts`.
        options: Lightning's.
    """

    def __init__(self, sharded: bool = False, **options: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=sharded, **options)
        self.sharded = sharded

    def setup_environment(self) -> None:
        assert self.cluster_environment is not None and self.lightning_module is not None
        writes = type(self.checkpoint_io)
        if self.sharded and writes not in (TorchCheckpointIO, WholeCheckpoints):
            raise UserError(
                f"trainer.strategy=fsdp2_sharded writes checkpoints in parts, and {writes.__name__} in its "
                "own way: leave that plugin out, or choose fsdp2."
            )
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

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """All processes write, then the first one names what they wrote.

        Raises:
            UserError: in parts, to what is no folder of this machine's.
            OSError: a disk is full.
        """
        if not self.sharded:
            return super().save_checkpoint(checkpoint, filepath, storage_options)
        if "://" in str(filepath) or storage_options is not None:
            raise UserError(
                f"{filepath}: trainer.strategy=fsdp2_sharded writes to folders alone; choose fsdp2."
            )
        file = Path(os.path.realpath(self.broadcast(filepath)))
        light, parts = divided(checkpoint)
        folder = self.broadcast(unused(file, checkpoint["global_step"]))
        write_parts(folder, parts)
        if self.is_global_zero:
            light[SHARDS] = folder.relative_to(file.parent).as_posix()
            try:
                self.checkpoint_io.save_checkpoint(light, file)
            except BaseException:  # such as a disk that is full
                shutil.rmtree(folder, ignore_errors=True)
                raise

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Of a checkpoint in parts each process reads what it holds.

        Raises:
            UserError: its parts are not there.
        """
        file = Path(self.broadcast(checkpoint_path))
        content = torch.load(file, map_location="cpu", weights_only=weights_only, mmap=True)
        if not in_parts(content):
            return super().load_checkpoint(file, weights_only)
        model = self.model
        assert model is not None and self.lightning_module is not None
        states = [get_optimizer_state_dict(model, one) for one in self.optimizers]
        own = {"state_dict": get_model_state_dict(model), "optimizer_states": states}
        with user_errors():
            names = content if states else ["state_dict"]
            fill(file, content, names, partial(self._place, dict(tensors(own))))
        strict = StateDictOptions(strict=self.lightning_module.strict_loading)
        set_model_state_dict(model, content["state_dict"], options=strict)
        if states and "optimizer_states" not in content:
            raise UserError(f"{file} holds no state of an optimizer, without which no run goes on.")
        some = StateDictOptions(strict=False)  # a weight without gradients had no state
        for one, state in zip(
            self.optimizers, content["optimizer_states"] if states else (), strict=True
        ):
            set_optimizer_state_dict(model, one, state, options=some)
        return content

    def _place(self, own: dict[str, Tensor], path: str, wanted: Tensor) -> Tensor:
        """Where a tensor of a checkpoint is read into: weights and their states where they are, beside them
        what an average keeps of the weights, and by rows what this run has not."""
        kind, _, name = path.partition("/")
        found = own.get(
            path if kind in ("state_dict", "optimizer_states") else f"state_dict/{name}"
        )
        if isinstance(found, DTensor) and found.shape == wanted.shape:
            return found if path in own else torch.empty_like(found, dtype=wanted.dtype)
        mesh = self.device_mesh["data_parallel"]
        return zeros(wanted.shape, dtype=wanted.dtype, device_mesh=mesh, placements=[Shard(0)])


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
