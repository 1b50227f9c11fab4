"""A task whose loss is a mean over more or fewer tokens or pixels from batch to batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tasks.training.task import Task

REFERENCE = 1024
"""Of what summed losses are divided by, to keep gradients in the range of half precision."""


class CountedTask(Task):
    """Where gradients come from several batches or processes, that of the mean over all that they count.

    A mean of means would give what stands in a batch with few more weight: each is weighed by what it
    counted, and the gradient divided by the sum over all batches and processes before the step.
    """

    counted: Tensor | int = 0
    """What was counted since the last optimizer step, where gradients come in several parts."""

    def count(self, batch: dict[str, Any]) -> Tensor | None:
        """What the loss of a batch was divided by: its tokens, say, or the weights of its pixels; None where that
        is its examples, of which all batches have as many."""
        raise NotImplementedError

    def training_step(self, batch: dict[str, Any], index: int) -> Tensor:
        loss = super().training_step(batch, index)
        if self.trainer.accumulate_grad_batches == 1 and self.trainer.world_size == 1:
            return loss
        count = self.count(batch)
        if count is None:
            return loss
        self.counted = self.counted + count
        return loss * (count / REFERENCE)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        super().on_before_optimizer_step(optimizer)
        if isinstance(self.counted, int):
            return
        total = self.trainer.strategy.reduce(self.counted, reduce_op="sum")
        # Lightning divided by the number of batches, and the strategy by that of processes.
        parts = self.trainer.accumulate_grad_batches * self.trainer.world_size
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad *= REFERENCE * parts / (total + (total == 0))
        self.counted = 0
