"""Batches of examples in an order, and with augmentation, that ``(seed, epoch)`` alone decide."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tasks.data.batching import Place


class Pick(NamedTuple):
    """An example, and the epoch in which it is seen: workers learn the epoch no other way."""

    index: int  # type: ignore[assignment]
    epoch: int


class ExampleBatches(Sampler[list[Pick]]):
    """Batches of examples; those of training depend on ``(seed, place.epoch)`` alone.

    In training all processes get equally many batches, and a resumed run goes on at
    ``place.done``. Evaluation covers every example exactly once over all processes.

    Args:
        count: number of examples.
        shuffle: whether this is training.
        place: where the run stands.
        drop_last: leave out a last batch that is not full (unless it is the only one).
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        place: Place | None = None,
        drop_last: bool = False,
    ) -> None:
        # Not "batch_size" and "drop_last": by these names Lightning takes it for PyTorch's own
        # kind, and builds it anew for prediction.
        self.count, self.size, self.shuffle, self.seed = count, batch_size, shuffle, seed
        self.place, self.full_only = place or Place(), drop_last

    def __iter__(self) -> Iterator[list[Pick]]:
        rank, world = self.place.process
        epoch = self.place.epoch if self.shuffle else 0
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        first = self.place.done if self.shuffle else 0
        for batch in range(rank + first * world, self._usable(), world):
            start = batch * self.size
            yield [Pick(i, epoch) for i in order[start : start + self.size].tolist()]

    def __len__(self) -> int:
        rank, world = self.place.process
        return len(range(rank, self._usable(), world))

    def _usable(self) -> int:
        """Batches of all processes together."""
        batches = -(-self.count // self.size)
        if self.full_only and self.count >= self.size:
            batches = self.count // self.size
        world = self.place.process[1]
        return max(1, batches // world) * world if self.shuffle and batches >= world else batches


@contextmanager
def seeded(seed: int, pick: Pick) -> Iterator[None]:
    """Within it, torch (on the CPU), numpy and ``random`` draw what ``(seed, pick)`` decide.

    For augmentation: the same in any worker and after a resume. Training's own random numbers go
    on afterwards as if nothing had been drawn. One use for a batch, with its first pick, is enough.
    """
    number = zlib.crc32(f"{seed}-{pick.epoch}-{pick.index}".encode())
    # Not torch.manual_seed, which would seed the GPU too.
    generator = torch.default_generator
    states = generator.get_state(), np.random.get_state(), random.getstate()
    generator.manual_seed(number)
    np.random.seed(number)
    random.seed(number)
    try:
        yield
    finally:
        generator.set_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def batch_loader(
    dataset: Dataset[Any], batches: Sampler[list[Pick]], num_workers: int
) -> DataLoader[Any]:
    """A loader of a dataset whose ``__getitems__(picks)`` gives a whole batch."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=as_it_is,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def as_it_is(batch: Any) -> Any:
    """Batches come whole."""
    return batch
