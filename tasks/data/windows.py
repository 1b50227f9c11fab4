"""Windows of one long row of tokens: at random places, or one behind the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from family.losses.language_model import IGNORE
from tasks.data.batching import LoaderProgress
from tasks.data.sampling import Pick


class Windows(Dataset[Any]):
    """The window that begins at an offset; a whole batch is fetched at once.

    Args:
        end: the token that ends a document, where none sees another.
    """

    def __init__(self, tokens: np.ndarray, context: int, end: int | None = None) -> None:
        self.tokens, self.span, self.end = tokens, np.arange(context + 1), end

    def __getitems__(self, offsets: list[int]) -> dict[str, Tensor]:
        rows = torch.from_numpy(self.tokens[np.asarray(offsets)[:, None] + self.span].astype("i8"))
        return isolated({"input_ids": rows[:, :-1], "labels": rows[:, 1:]}, self.end)


class Blocks(Dataset[Any]):
    """Consecutive windows; the last one is filled up with tokens that do not count."""

    def __init__(self, tokens: np.ndarray, context: int, end: int | None = None) -> None:
        self.tokens, self.context, self.end = tokens, context, end

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1) // self.context)

    def __getitems__(self, picks: list[Pick]) -> dict[str, Tensor]:
        input_ids = torch.zeros(len(picks), self.context, dtype=torch.long)
        labels = torch.full_like(input_ids, IGNORE)
        for row, pick in enumerate(picks):
            start = pick.index * self.context
            part = torch.from_numpy(self.tokens[start : start + self.context + 1].astype("i8"))
            input_ids[row, : len(part) - 1] = part[:-1]
            labels[row, : len(part) - 1] = part[1:]
        return isolated({"input_ids": input_ids, "labels": labels}, self.end)


def isolated(batch: dict[str, Tensor], end: int | None) -> dict[str, Tensor]:
    """A batch with the number of each token's document, counted within its row; what follows an end is
    then not predicted."""
    if end is None:
        return batch
    ends = batch["input_ids"] == end
    documents = ends.cumsum(1) - ends.long()
    return {**batch, "labels": batch["labels"].masked_fill(ends, IGNORE), "documents": documents}


class RandomWindows(Sampler[list[int]]):
    """Batches of random offsets that depend on ``(seed, epoch)`` alone; processes share them.

    An epoch's windows start at every ``last / count``-th token or so, shifted at random and in random
    order: all of the text is seen about equally often.
    """

    def __init__(
        self, last: int, batch_size: int, batches: int, seed: int, progress: LoaderProgress
    ) -> None:
        self.last, self.batch_size, self.count = last, batch_size, batches
        self.seed, self.progress = seed, progress

    def __iter__(self) -> Iterator[list[int]]:
        rank, world = self.progress.process
        random = np.random.default_rng([self.seed, self.progress.order, 0])
        # Of a text too short for all processes, windows overlap more.
        count = max(self.count, world)
        slots = count * self.batch_size
        offsets = (random.permutation(slots) + random.random()) * (self.last / slots)
        batches = offsets.astype(int).reshape(count, self.batch_size)[rank::world][: len(self)]
        return iter(batches[len(self) - self.left() :].tolist())

    @property
    def size(self) -> int:
        return self.batch_size

    def left(self) -> int:
        done = self.progress.done(self.batch_size)
        return max(0, len(self) - done // (self.batch_size * self.progress.process[1]))

    def __len__(self) -> int:
        return max(1, self.count // self.progress.process[1])
