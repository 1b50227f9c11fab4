"""What translation and language modelling share: token loss, optimizer, schedule, checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from family.losses.language_model import IGNORE, language_model_loss
from tasks.errors import UserError
from tasks.optim import build_optimizer, build_schedule

REFERENCE = 1024
"""Tokens that summed losses are divided by, to keep gradients in the range of half precision."""


class TokenTask(pl.LightningModule):
    """Train a model on next-token cross-entropy.

    Args:
        model: what builds the model from the vocabulary size; the data module hands that in.
        lr: the peak of the schedule.
        optimizer: "adamw", "adam", "muon", or any of timm's.
        schedule: "constant", "inverse_sqrt", "cosine", "linear" or "wsd", after a linear warm-up.
        min_lr_ratio: where "cosine", "linear" and "wsd" end, as a share of the peak.
        compile: compile the model with torch.compile.
    """

    monitor = ("val/loss", "min")
    """The metric by which the best checkpoint is chosen."""

    def __init__(
        self,
        model: Callable[[int], nn.Module],
        lr: float = 1e-3,
        optimizer: str = "adamw",
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.98),
        schedule: str = "cosine",
        warmup_steps: int = 100,
        min_lr_ratio: float = 0.0,
        label_smoothing: float = 0.0,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.build = model
        self.model: nn.Module | None = None
        self.lr, self.optimizer_name, self.weight_decay = lr, optimizer, weight_decay
        self.betas, self.schedule, self.warmup_steps = betas, schedule, warmup_steps
        self.min_lr_ratio, self.label_smoothing = min_lr_ratio, label_smoothing
        self.compile_model = compile
        self.tokens: Tensor | int = 0
        """Tokens since the last optimizer step, counted where gradients come in several parts."""
        self.model_spec: dict[str, Any] = {}
        """Class path and arguments of the model, plain values; the command line fills it in."""

    def configure_model(self) -> None:
        if self.model is None:
            arguments = self.trainer.datamodule.model_arguments  # type: ignore[attr-defined]
            try:
                self.model = self.build(**arguments)
            except (TypeError, ValueError) as error:
                raise UserError(f"model: {error}") from error
            if self.compile_model:
                self.model.compile()  # in place: names in checkpoints stay as they are

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """``(batch, tokens, vocab)``, by the contract of the task's members."""
        raise NotImplementedError

    def loss(self, batch: dict[str, Any], smoothing: float) -> Tensor:
        return language_model_loss(self.logits(batch), batch["labels"], smoothing)

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        loss = self.loss(batch, self.label_smoothing)
        if self.global_step % self.trainer.log_every_n_steps == 0:
            self.log("train/loss", loss.detach(), prog_bar=True)
        if self.trainer.accumulate_grad_batches == 1 and self.trainer.world_size == 1:
            return loss
        # A mean of means would give tokens of small batches more weight: sum here, and divide by
        # the tokens of all batches and processes together before the step.
        count = (batch["labels"] != IGNORE).sum()
        self.tokens = self.tokens + count
        return loss * (count / REFERENCE)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if isinstance(self.tokens, int):
            return
        total = self.trainer.strategy.reduce(self.tokens, reduce_op="sum")
        # Lightning divided by the number of batches, and the strategy by that of processes.
        parts = self.trainer.accumulate_grad_batches * self.trainer.world_size
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad *= REFERENCE * parts / total
        self.tokens = 0

    def evaluate(self, batch: dict[str, Any], split: str) -> None:
        """Log the loss, weighted by tokens so that the mean is over tokens, not batches."""
        count = int((batch["labels"] != IGNORE).sum())
        loss = self.loss(batch, 0.0)
        self.log(
            f"{split}/loss", loss, prog_bar=True, on_epoch=True, batch_size=count, sync_dist=True
        )

    def configure_optimizers(self) -> Any:
        assert self.model is not None
        optimizer = build_optimizer(
            self.optimizer_name, self.model, self.lr, self.weight_decay, self.betas
        )
        total = int(self.trainer.estimated_stepping_batches)
        schedule = build_schedule(
            self.schedule, optimizer, self.warmup_steps, total, self.min_lr_ratio
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def tokenizers(self) -> dict[str, str]:
        """The data's tokenizers as JSON, by the names of their fields."""
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Plain values alone, so that the file loads with weights_only.
        checkpoint["family"] = {
            "task": f"{type(self).__module__}.{type(self).__qualname__}",
            "model": self.model_spec,
            "arguments": dict(self.trainer.datamodule.model_arguments),  # type: ignore[attr-defined]
            "tokenizers": self.tokenizers(),
        }


def trainable_parameters(model: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
