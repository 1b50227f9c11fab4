"""Batches of like length, by tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import Sampler


class Place:
    """Where a run stands in its data: the epoch, the batches done of it, this process of how many.

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
    Several processes take turns at the batches; in training all get equally many.

    Args:
        lengths: tokens of each example, the larger of source and target.
        tokens_per_batch: an example longer than this is a batch of its own.
        max_rows: at most so many examples a batch, however short they are.
        shuffle: False keeps the examples in the order of their lengths.
        place: where the run stands.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        tokens_per_batch: int,
        shuffle: bool = True,
        seed: int = 0,
        place: Place | None = None,
        max_rows: int | None = None,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.tokens_per_batch, self.shuffle, self.seed = tokens_per_batch, shuffle, seed
        self.place, self.max_rows = place or Place(), max_rows

    def batches(self) -> list[list[int]]:
        """All batches of the current epoch."""
        random = np.random.default_rng([self.seed, self.place.epoch if self.shuffle else 0])
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
        rank, world = self.place.process
        batches = self.batches()
        if self.shuffle:
            batches = batches[: max(1, len(batches) // world) * world]
        return batches[rank::world]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.mine()[self.place.done if self.shuffle else 0 :])

    def __len__(self) -> int:
        return len(self.mine())
