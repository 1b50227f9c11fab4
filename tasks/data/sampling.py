"""Batches of examples in an order, and with augmentation, that ``(seed, epoch)`` alone decide."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from tasks.data.batching import LoaderProgress, check_enough, rounds


class Pick(NamedTuple):
    """An example, and the epoch in which it is seen: workers learn the epoch no other way."""

    index: int  # type: ignore[assignment]
    epoch: int


class ExampleBatches(Sampler[list[Pick]]):
    """Batches of examples; those of training depend on ``(seed, progress.order)`` alone.

    All processes get equally many batches. In training a resumed run goes on with the example
    after ``progress.done``.
    Evaluation covers every example exactly once over all processes.

    Args:
        count: number of examples.
        shuffle: whether this is training.
        progress: how far the run is.
        drop_last: leave out a last batch that is not full (unless it is the only one).
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        shuffle: bool,
        seed: int = 0,
        progress: LoaderProgress | None = None,
        drop_last: bool = False,
    ) -> None:
        # Not "batch_size" and "drop_last": by these names Lightning takes it for PyTorch's own
        # kind, and builds it anew for prediction.
        self.count, self.size, self.shuffle, self.seed = count, batch_size, shuffle, seed
        self.progress, self.full_only = progress or LoaderProgress(), drop_last

    def __iter__(self) -> Iterator[list[Pick]]:
        rank, world = self.progress.process
        epoch = self.progress.order if self.shuffle else 0
        order = np.arange(self.count)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        for start, stop in self._bounds(self._done())[rank::world]:
            yield [Pick(i, epoch) for i in order[start:stop].tolist()]

    def __len__(self) -> int:
        """Of a whole epoch."""
        rank, world = self.progress.process
        return len(self._bounds()[rank::world])

    def left(self) -> int:
        rank, world = self.progress.process
        return len(self._bounds(self._done())[rank::world])

    def _done(self) -> int:
        return min(self.progress.done(self.size), self.count) if self.shuffle else 0

    def _bounds(self, first: int = 0) -> list[tuple[int, int]]:
        """Where the batches of all processes together begin and end in the order of examples.

        Args:
            first: the example to begin with.
        """
        size, world = self.size, self.progress.process[1]
        batches = -(-(self.count - first) // size)
        if self.shuffle:
            if self.full_only and self.count >= size:
                batches = (self.count - first) // size
            if not first:
                rounds(batches, world)  # or there are too few
            batches -= batches % world
        elif world > 1:
            check_enough(self.count, world)
            # As few as hold all, of nearly one size, and no process without its share.
            batches = min(-(-batches // world), self.count // world) * world
            edges = [self.count * i // batches for i in range(batches + 1)]
            return list(pairwise(edges))
        starts = range(first, first + batches * size, size)
        return [(start, min(start + size, self.count)) for start in starts]


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


def batch_loader(dataset: Dataset[Any], batches: Sampler[Any], num_workers: int) -> DataLoader[Any]:
    """A loader of a dataset whose ``__getitems__(picks)`` gives a whole batch."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=as_it_is,
        num_workers=num_workers,
        generator=torch.Generator(),  # else it draws from training's random numbers
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def as_it_is(batch: Any) -> Any:
    """Batches come whole."""
    return batch
