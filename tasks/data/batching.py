"""Batches of like length, by tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import Sampler

from tasks.errors import UserError


class LoaderProgress:
    """How far a run is with its data: the epoch, the batches done of it, this process of how many.

    Saved with a checkpoint by the data module, so that a resumed run goes on with the next batch.
    """

    def __init__(self, data: pl.LightningDataModule | None = None) -> None:
        self.data = data
        self.resumed = (-1, 0)

    @property
    def trainer(self) -> pl.Trainer | None:
        return None if self.data is None else self.data.trainer

    @property
    def epoch(self) -> int:
        return 0 if self.trainer is None else self.trainer.current_epoch

    @property
    def done(self) -> int:
        """Batches of this epoch that were trained on before the run was resumed."""
        epoch, batches = self.resumed
        return batches if epoch == self.epoch else 0

    @property
    def process(self) -> tuple[int, int]:
        """``(rank, processes)``."""
        return (
            (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        )

    def state_dict(self) -> dict[str, Any]:
        assert self.trainer is not None
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.completed
        return {"epoch": self.epoch, "batches": done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.resumed = state["epoch"], state["batches"]


class TokenBatches(Sampler[list[int]]):
    """Batches of examples of like length; rows times the longest row is at most a budget.

    Each epoch shuffles anew: examples of equal length among each other, and the order of batches.
    The order depends on ``(seed, epoch)`` alone, so that a resumed run can skip what it has seen.
    Several processes take turns at the batches and get equally many of them. Training leaves out
    what is over; in evaluation each example is in one batch of one process.

    Args:
        lengths: tokens of each example, the larger of source and target.
        tokens_per_batch: an example longer than this is a batch of its own.
        max_rows: at most so many examples a batch, however short they are.
        shuffle: False keeps the examples in the order of their lengths.
        progress: how far the run is.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        tokens_per_batch: int,
        shuffle: bool = True,
        seed: int = 0,
        progress: LoaderProgress | None = None,
        max_rows: int | None = None,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.tokens_per_batch, self.shuffle, self.seed = tokens_per_batch, shuffle, seed
        self.progress, self.max_rows = progress or LoaderProgress(), max_rows

    def batches(self) -> list[list[int]]:
        """All batches of the current epoch."""
        random = np.random.default_rng([self.seed, self.progress.epoch if self.shuffle else 0])
        order = np.arange(len(self.lengths))
        noise = np.zeros(len(order))
        if self.shuffle:
            # A little noise on lengths, so that neighbours differ from epoch to epoch.
            noise = random.uniform(0, 1 + 0.1 * self.lengths)
        order = order[np.argsort(self.lengths + noise, kind="stable")]
        groups: list[list[int]] = [[]]
        longest = 0
        for index in order.tolist():
            length = max(longest, int(self.lengths[index]))
            rows = len(groups[-1])
            if rows and (length * (rows + 1) > self.tokens_per_batch or rows == self.max_rows):
                groups.append([])
                length = int(self.lengths[index])
            groups[-1].append(index)
            longest = length
        if self.shuffle:
            return [groups[i] for i in random.permutation(len(groups))]
        return groups

    def mine(self) -> list[list[int]]:
        """The batches of this process."""
        rank, world = self.progress.process
        batches = self.batches()
        if self.shuffle:
            batches = batches[: rounds(len(batches), world) * world]
        else:
            batches = equally_many(batches, world)
        return batches[rank::world]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.mine()[self.progress.done if self.shuffle else 0 :])

    def __len__(self) -> int:
        return len(self.mine())


def rounds(batches: int, processes: int) -> int:
    """How many batches of training each process gets, equally many.

    Raises:
        UserError: not even one: the others would wait for a process without any.
    """
    if batches < processes:
        raise UserError(
            f"the training data make {batches} batch{'es' * (batches != 1)}, too few for {processes} "
            "processes: make the batches smaller, or give fewer trainer.devices."
        )
    return batches // processes


def equally_many(batches: list[list[int]], processes: int) -> list[list[int]]:
    """Batches of evaluation, some of which are halved so that all processes get equally many.

    A process with fewer would not answer where a step of the others asks all, and one without any
    would have no metric to choose checkpoints by.
    Where all batches are of one example, the shortest are put together.

    Args:
        batches: in the order of their lengths.

    Raises:
        UserError: there are fewer examples than processes.
    """
    check_enough(sum(map(len, batches)), processes)
    batches = list(batches)
    while len(batches) % processes and max(map(len, batches)) > 1:
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        rows = batches[largest]
        batches[largest : largest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    for first in range(len(batches) % processes):
        batches[first : first + 2] = [batches[first] + batches[first + 1]]
    return batches


def check_enough(examples: int, processes: int) -> None:
    """Refuse to evaluate with more processes than examples: one would wait for metrics in vain.

    Raises:
        UserError: there are fewer examples than processes.
    """
    if examples < processes:
        raise UserError(
            f"evaluation has {examples} example{'s' * (examples != 1)}, too few for {processes} "
            "processes: give fewer trainer.devices."
        )
