"""What translation and language modelling share: a loss over tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from family.losses.language_model import IGNORE, language_model_loss
from tasks.errors import between
from tasks.task import Task

REFERENCE = 1024
"""Tokens that summed losses are divided by, to keep gradients in the range of half precision."""


class TokenTask(Task):
    """Train a model on next-token cross-entropy.

    Args:
        model: what builds the model from the vocabulary size.
        label_smoothing: in training; validation and test report the plain loss.
        options: of :class:`~tasks.task.Task`.
    """

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        label_smoothing: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        between(0, 1, of="model.", label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing
        self.tokens: Tensor | int = 0
        """Tokens since the last optimizer step, counted where gradients come in several parts."""

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """``(batch, tokens, vocab)``, by the contract of the task's members."""
        raise NotImplementedError

    def loss(self, batch: dict[str, Any], smoothing: float) -> Tensor:
        return language_model_loss(self.logits(batch), batch["labels"], smoothing)

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        loss = self.loss(batch, self.label_smoothing)
        self.log_training("loss", loss.detach(), prog_bar=True)
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
