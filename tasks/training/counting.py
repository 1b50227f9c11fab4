"""What the batches of one optimizer step count, together and over all processes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

Count = Tensor | int
UNIT = "loss_unit"
"""Where a checkpoint keeps what the weights of losses are counted in."""


class Counting(pl.LightningModule):
    """Where gradients come from several batches or processes, that of the mean over all that they count.

    A mean of means would give what stands in a batch with few more weight. So each loss is weighed by what
    it was divided by (:meth:`count`), and the gradient divided by the sum over all batches and processes
    before the step. A loss of terms that are divided by several (:meth:`term_counts`) cannot be weighed
    afterwards: it is told beforehand, as ``whole`` in its batch, what all parts of the step count.
    """

    fields: tuple[str, ...]

    def __init__(self) -> None:
        super().__init__()
        self._counted: Count = 0
        """Since the last optimizer step, where gradients come in several parts."""
        self._unit = 0.0
        """What weights are counted in, to keep gradients in the range of half precision. It is found at the
        first batch of a run, and a checkpoint keeps it: the first after a cut would often give another."""
        self._whole: dict[str, Tensor] = {}
        """Of the step that is made, what each part counts in the mean, by name."""
        self._told: tuple[int, int] = (-1, 1)
        """That step, and the batches that each process has of it."""

    def by_name(self, batch: Any) -> Any:
        """A batch by the names of its fields."""
        raise NotImplementedError

    def count(self, batch: dict[str, Any]) -> Count:
        """What the loss of a batch was divided by: its examples, or say its tokens, the weights of its
        pixels."""
        known = isinstance(batch, dict) and self.fields and self.fields[0] in batch
        return len(batch[self.fields[0]]) if known else 1

    def term_counts(self, batch: dict[str, Any]) -> dict[str, Count]:
        """What several terms of the loss are divided by, by name, as whole numbers; they are found before the
        batch is on the device. None are there where :meth:`count` says it.

        A loss that finds ``whole`` in its batch divides by that: of each the mean over all parts of the step.
        """
        return {}

    @property
    def in_parts(self) -> bool:
        """Whether the gradient of a step comes from several batches or processes."""
        return self.trainer.accumulate_grad_batches > 1 or self.trainer.world_size > 1

    def setup(self, stage: str) -> None:
        # What a fit before has left is of no step of this one.
        self._counted, self._unit, self._told, self._whole = 0, 0.0, (-1, 1), {}

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        if not self.in_parts or self._told[0] == self.global_step:
            return
        self._told, self._whole = (self.global_step, 1), {}
        first = self.term_counts(self.by_name(batch))
        if not first:
            return
        rest = [self.term_counts(self.by_name(one)) for one in ahead(self.trainer)]
        sums = [sum(int(one[name]) for one in (first, *rest)) for name in first]
        total = self.trainer.strategy.reduce(
            torch.tensor(sums, device=self.device), reduce_op="sum"
        )
        parts = 1 + len(rest)
        means = total / (parts * self.trainer.world_size)
        self._told = self.global_step, parts
        self._whole = dict(zip(first, means.unbind(), strict=True))

    def told(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch that is trained on, with what the ``whole`` step counts where its loss asks for that."""
        return {**batch, "whole": self._whole} if self.in_parts and self._whole else batch

    def weighed(self, loss: Tensor, batch: dict[str, Any]) -> Tensor:
        """The loss of a batch, so that the gradients of all parts of a step become that of their mean."""
        if not self.in_parts:
            return loss
        if self._whole:
            return loss * (self.trainer.accumulate_grad_batches / self._told[1])
        count = self.count(batch)
        if not self._unit:
            own = torch.tensor(float(count), device=self.device)
            mean = float(self.trainer.strategy.reduce(own, reduce_op="mean"))
            # Of two, so that gradients are to the bit what they are by any other.
            self._unit = 2.0 ** round(math.log2(max(1.0, mean)))
        self._counted = self._counted + count
        return loss * (count / self._unit)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if isinstance(self._counted, int) and not self._counted:
            return
        counted = torch.as_tensor(self._counted, device=self.device)
        total = self.trainer.strategy.reduce(counted, reduce_op="sum")
        # Lightning divided by the number of batches, and the strategy by that of processes.
        parts = self.trainer.accumulate_grad_batches * self.trainer.world_size
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad *= self._unit * parts / (total + (total == 0))
        self._counted = 0

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._unit:
            checkpoint[UNIT] = self._unit

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._unit = float(checkpoint.get(UNIT, 0.0))


class Foreseen:
    """An iterator of which what comes next can be seen before it is taken."""

    def __init__(self, source: Iterator[Any]) -> None:
        self.source, self.seen = source, deque[Any]()

    def __iter__(self) -> Foreseen:
        return self

    def __next__(self) -> Any:
        return self.seen.popleft() if self.seen else next(self.source)

    def see(self, count: int) -> list[Any]:
        """The next so many, or as many as are left."""
        with suppress(StopIteration):
            while len(self.seen) < count:
                self.seen.append(next(self.source))
        return list(self.seen)[:count]


def ahead(trainer: Any) -> list[Any]:
    """The batches of a step behind the one that has begun; they are given out in their turn all the same."""
    loop: Any = trainer.fit_loop
    ready, fetcher = loop.epoch_loop.batch_progress.current.ready, loop._data_fetcher
    left = min(-ready % trainer.accumulate_grad_batches, trainer.num_training_batches - ready)
    if not isinstance(fetcher.iterator, Foreseen):
        fetcher.iterator = Foreseen(fetcher.iterator)
    waiting = list(getattr(fetcher, "batches", ()))  # of a loader that does not know its length
    more = fetcher.iterator.see(max(0, int(left) - len(waiting)))
    return [batch for batch, *_ in (*waiting, *more)][: int(left)]
