"""Several tasks, or several directions of translation, in one training, in other proportions than their
sizes (Raffel et al. 2020, section 3.5.2; Arivazhagan et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.data.batching import TokenBatches


def shares(
    counts: Sequence[int], temperature: float, weights: Sequence[float] | None = None
) -> list[int]:
    """How many examples of each group an epoch has: ``count ** (1 / temperature)`` times its weight, scaled
    so that there are as many in all. At 1 that is as many as it has, and the higher, the more equal they
    are; a group that is not empty has one at least."""
    sizes = np.asarray(counts, dtype=float)
    wanted = np.where(sizes > 0, sizes ** (1 / temperature), 0.0)
    wanted *= 1.0 if weights is None else np.asarray(weights, dtype=float)
    wanted *= sizes.sum() / wanted.sum()
    found = np.floor(wanted).astype(int)
    rest = np.argsort(found - wanted, kind="stable")[: int(sizes.sum()) - int(found.sum())]
    found[rest] += 1
    return np.maximum(found, sizes > 0).tolist()


def drawn(count: int, number: int, epoch: int, seed: Sequence[int]) -> NDArray[np.int64]:
    """The examples of a group in one epoch: it goes through all of them in an order of its own, then in
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
    """Batches of like length in which groups of examples have the shares that are asked for, see
    :func:`shares` and :func:`drawn`; in evaluation each example is there once.

    Args:
        lengths, tokens_per_batch: of :class:`~tasks.data.batching.TokenBatches`.
        groups: the number of each example's, from 0 on.
        temperature, weights: see :func:`shares`.
        options: of :class:`~tasks.data.batching.TokenBatches`.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        tokens_per_batch: int,
        groups: Sequence[int],
        temperature: float,
        weights: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(lengths, tokens_per_batch, **options)
        numbers = np.asarray(groups)
        self.members = [np.flatnonzero(numbers == i) for i in range(numbers.max(initial=-1) + 1)]
        self.shares = shares([len(mine) for mine in self.members], temperature, weights)

    def chosen(self, epoch: int) -> NDArray[np.int64]:
        if not self.shuffle:
            return super().chosen(epoch)
        found = [
            mine[drawn(len(mine), share, epoch, (self.seed, i))]
            for i, (mine, share) in enumerate(zip(self.members, self.shares, strict=True))
            if share
        ]
        return np.sort(np.concatenate(found))
