"""Several tasks in one training, in other proportions than their sizes (Raffel et al. 2020, section 3.5.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.data.batching import LoaderProgress, TokenBatches


def shares(counts: Sequence[int], weights: Sequence[float], temperature: float) -> list[float]:
    """What part of a training each task is: its examples to the power of ``1 / temperature``, times its
    weight. At 1 that is as many as it has, and the higher, the more equal they are."""
    sizes = np.array(counts, float) ** (1 / temperature) * np.array(weights)
    return (sizes / sizes.sum()).tolist()


def drawn(count: int, number: int, epoch: int, seed: Sequence[int]) -> NDArray[np.int64]:
    """The examples of a task in one epoch: it goes through all of them in an order of its own, then in
    another, and each epoch goes on where the one before it ended.

    Args:
        count: how many it has.
        number: how many an epoch takes.
    """
    first, last = epoch * number, (epoch + 1) * number
    rounds = range(first // count, -(-last // count))
    order = [np.random.default_rng([*seed, turn]).permutation(count) for turn in rounds]
    return np.concatenate(order)[first - rounds[0] * count :][:number]


class MixedBatches(TokenBatches):
    """Batches of training of like length, in which tasks have the shares that are asked for. An epoch has
    as many examples as all tasks together, of each its share, and one at least.

    Args:
        counts: examples of each task, which stand behind each other.
        weights, temperature: see :func:`shares`.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        tokens_per_batch: int,
        counts: Sequence[int],
        weights: Sequence[float],
        temperature: float,
        seed: int = 0,
        progress: LoaderProgress | None = None,
    ) -> None:
        super().__init__(lengths, tokens_per_batch, True, seed, progress)
        self.counts = list(counts)
        parts = shares(counts, weights, temperature)
        self.numbers = [max(1, round(sum(counts) * part)) for part in parts]

    def batches(self) -> list[list[int]]:
        first = np.cumsum([0, *self.counts])
        epoch = self.progress.epoch
        found = [
            first[i] + drawn(count, number, epoch, (self.seed, i))
            for i, (count, number) in enumerate(zip(self.counts, self.numbers, strict=True))
        ]
        return self._grouped(np.sort(np.concatenate(found)), self.tokens_per_batch, self.max_rows)
