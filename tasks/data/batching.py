"""Batches of like length, by tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


class TokenBatches(Sampler[list[int]]):
    """Batches of examples of like length; rows times the longest row is at most a budget.

    Each epoch shuffles anew: examples of equal length among each other, and the order of batches.
    The order depends on ``(seed, epoch)`` alone, so that a resumed run can skip what it has seen.

    Args:
        lengths: tokens of each example, the larger of source and target.
        tokens_per_batch: an example longer than this is a batch of its own.
        shuffle: False keeps the examples in the order of their lengths.
    """

    def __init__(
        self, lengths: Sequence[int], tokens_per_batch: int, shuffle: bool = True, seed: int = 0
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.tokens_per_batch, self.shuffle, self.seed = tokens_per_batch, shuffle, seed
        self.epoch = 0
        self.skip = 0
        """Batches to leave out of the next epoch, because they were trained on before a stop."""

    def batches(self) -> list[list[int]]:
        """All batches of the current epoch."""
        random = np.random.default_rng([self.seed, self.epoch])
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
            if groups[-1] and length * (len(groups[-1]) + 1) > self.tokens_per_batch:
                groups.append([])
                length = int(self.lengths[index])
            groups[-1].append(index)
            longest = length
        if self.shuffle:
            return [groups[i] for i in random.permutation(len(groups))]
        return groups

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        batches, self.skip = self.batches()[self.skip :], 0
        return iter(batches)

    def __len__(self) -> int:
        return len(self.batches()) - self.skip
