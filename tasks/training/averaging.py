"""An average of weights that are shared out over processes: each holds that of its own part."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel

from family.sharding import held


class Held(nn.Module):
    """What this process holds of a module, as plain weights and buffers in the same memory."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        parts, count = held(module), len(list(module.parameters()))
        self.weights = nn.ParameterList(
            nn.Parameter(part, requires_grad=False) for part in parts[:count]
        )
        for number, buffer in enumerate(parts[count:]):
            self.register_buffer(str(number), buffer)


class SharedAveraging(WeightAveraging):
    """In the place of an average that somebody asked for, which would copy the whole of a model.

    When and how it averages is that one's, and a checkpoint is what that one writes.
    """

    def __init__(self, asked: WeightAveraging) -> None:
        self.__dict__.update(vars(asked))
        self.asked = asked

    @property
    def state_key(self) -> str:
        return self.asked.state_key

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return self.asked.should_update(step_idx, epoch_idx)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pass  # nothing is shared out yet

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._average_model = AveragedModel(
            Held(pl_module),
            device=self._device or pl_module.device,
            use_buffers=self._use_buffers,
            **self._kwargs,
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any
    ) -> None:
        super().on_train_batch_end(trainer, Held(pl_module), *batch)  # type: ignore[arg-type]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, Held(pl_module))  # type: ignore[arg-type]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, Held(pl_module))  # type: ignore[arg-type]

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        super()._swap_models(Held(pl_module))  # type: ignore[arg-type]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._average_model is None:
            return super().on_save_checkpoint(trainer, pl_module, checkpoint)
        checkpoint["current_model_state"] = checkpoint["state_dict"]
        self._swap_models(pl_module)
        averages = trainer.strategy.lightning_module_state_dict()
        # Of weights that are not gathered these are the weights themselves, which are swapped again.
        checkpoint["state_dict"] = {name: value.clone() for name, value in averages.items()}
        self._swap_models(pl_module)
        checkpoint["averaging_state"] = {"n_averaged": self._average_model.n_averaged}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The strategy has put the average into the model."""
        if self._average_model is None:
            return super().on_load_checkpoint(trainer, pl_module, checkpoint)
        self._average_model.module.load_state_dict(Held(pl_module).state_dict())
        if "current_model_state" in checkpoint:
            self._average_model.load_state_dict(checkpoint["averaging_state"], strict=False)
            now = checkpoint["current_model_state"]
            full = not any(isinstance(value, DTensor) for value in now.values())
            set_model_state_dict(pl_module, now, options=StateDictOptions(full_state_dict=full))
