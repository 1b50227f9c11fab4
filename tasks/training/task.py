"""What every task shares: the model built for the data, optimizer, schedule, checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
from PIL import Image
from torch import nn

from family.accelerate import accelerate
from family.inputs.preprocess import Preprocess
from tasks.errors import UserError, at_least, between
from tasks.runs.checkpoints import build_for
from tasks.training.finetuning import LoRA, adapt
from tasks.training.optim import build_optimizer, build_schedule
from tasks.training.transplant import Report, Transplant, carry_out


class Task(pl.LightningModule):
    """Train a model; subclasses say by which loss, and how well it does.

    Args:
        model: what builds the model; the data module hands in what it decides (a vocabulary size, a
            number of classes, the size of pictures).
        lr: the peak of the schedule.
        optimizer: "adamw", "adam", "muon", or any of timm's.
        schedule: "constant", "inverse_sqrt", "cosine", "linear" or "wsd", after a linear warm-up.
        min_lr_ratio: where "cosine", "linear" and "wsd" end, as a share of the peak.
        compile: compile the model with torch.compile.
        pretrained: train on from published weights, in the place of ``model``: anything that
            :func:`family.from_pretrained` takes, such as the id of a model on the hub.
        freeze: patterns of the names of parameters that do not learn, such as ``embedding.*``.
        layer_decay: each layer learns slower by this factor than the one above it (BEiT: 0.65 to
            0.9), see :func:`~tasks.training.optim.layer_factors`.
        lora: train adapters alone, see :class:`~tasks.training.finetuning.LoRA`.
        transplant: start from parts of a trained model of another kind, see
            :class:`~tasks.training.transplant.Transplant`.
    """

    monitor = ("val/loss", "min")
    """The metric by which the best checkpoint is chosen."""

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        lr: float = 1e-3,
        optimizer: str = "adamw",
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.98),
        schedule: str = "cosine",
        warmup_steps: int = 100,
        min_lr_ratio: float = 0.0,
        compile: bool = False,
        pretrained: str | None = None,
        freeze: list[str] | None = None,
        layer_decay: float | None = None,
        lora: LoRA | None = None,
        transplant: Transplant | None = None,
    ) -> None:
        super().__init__()
        if model is not None and pretrained is not None:
            raise UserError(
                f"model.pretrained={pretrained} brings its own architecture: leave model.model out."
            )
        if lora is not None and (pretrained is None or freeze):
            other = "without model.pretrained" if pretrained is None else "beside model.freeze"
            raise UserError(f"model.lora {other}: it freezes all weights of a published model.")
        if transplant is not None and pretrained is not None:
            raise UserError(
                f"model.transplant beside model.pretrained={pretrained}: choose where weights come from."
            )
        at_least(0, of="model.", lr=lr, warmup_steps=warmup_steps, weight_decay=weight_decay)
        between(0, 1, of="model.", min_lr_ratio=min_lr_ratio, beta1=betas[0], beta2=betas[1])
        if layer_decay is not None:
            between(0, 1, of="model.", layer_decay=layer_decay)
        self.build, self.pretrained = model, pretrained
        self.freeze_patterns, self.layer_decay, self.lora = list(freeze or []), layer_decay, lora
        self.transplant = transplant
        self.transplanted: Report | None = None
        """What became of each weight, where parts come from another model."""
        self.model: Any = None
        self.lr, self.optimizer_name, self.weight_decay = lr, optimizer, weight_decay
        self.betas, self.schedule, self.warmup_steps = betas, schedule, warmup_steps
        self.min_lr_ratio, self.compile_model = min_lr_ratio, compile
        self.model_spec: dict[str, Any] = {}
        """Class path and arguments of the model, plain values; the command line fills it in."""
        self.samples: list[str] = []
        """Predictions as text, of the last validation."""
        self.pictures: dict[str, Image.Image] = {}
        """Predictions as pictures, by name, of the last validation."""
        self.signatures: dict[str, str] = {}
        """How each metric was computed, where there is more than one way."""

    @property
    def data(self) -> Any:
        """The data module of the run."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def preprocess(self) -> Preprocess:
        """How the data makes ``pixel_values`` of pictures."""
        return Preprocess.from_dict(self.data.assets()["preprocess"])

    def configure_model(self) -> None:
        if self.model is None:
            if self.build is None:
                raise UserError(
                    "the task has no model: give model.model, what builds one, or "
                    "model.pretrained, which the command line (or tasks.training.finetuning.load_source) reads."
                )
            try:
                self.model = build_for(self.build, self.data.model_arguments)
            except (TypeError, ValueError) as error:
                raise UserError(f"model: {error}") from error
            if self.transplant is not None:
                self.transplanted = carry_out(self.model, self.transplant)
            adapt(self.model, self.lora, self.freeze_patterns)
            if self.trainer.strategy.root_device.type == "cpu":
                accelerate(self.model)
            if self.compile_model:
                for part in self.compiled_parts():
                    part.compile()  # in place: names in checkpoints stay as they are

    def compiled_parts(self) -> list[nn.Module]:
        """What training calls of the model."""
        return [self.model]

    def log_training(self, name: str, value: Any, prog_bar: bool = False) -> None:
        """Log a number of a training step, at the steps that are logged at all."""
        if self.global_step % self.trainer.log_every_n_steps == 0:
            self.log(f"train/{name}", value, prog_bar=prog_bar)

    def configure_optimizers(self) -> Any:
        fused = "mixed" not in str(self.trainer.precision)
        optimizer = build_optimizer(
            self.optimizer_name,
            self.model,
            self.lr,
            self.weight_decay,
            self.betas,
            fused,
            self.layer_decay,
        )
        total = self.trainer.estimated_stepping_batches
        if total == math.inf:
            if self.schedule not in ("constant", "inverse_sqrt"):
                raise UserError(
                    f"schedule={self.schedule!r} ends with the training: it needs "
                    "trainer.max_steps or trainer.max_epochs."
                )
            total = 0  # which these two do not ask for
        schedule = build_schedule(
            self.schedule, optimizer, self.warmup_steps, int(total), self.min_lr_ratio
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Plain values alone, so that the file loads with weights_only.
        checkpoint["family"] = {
            "task": f"{type(self).__module__}.{type(self).__qualname__}",
            "model": self.model_spec,
            # A published model's are all its own.
            "arguments": {} if self.pretrained else dict(self.data.model_arguments),
            "assets": self.data.assets(),
            "pretrained": self.pretrained,
            "lora": None if self.lora is None else asdict(self.lora),
        }
