"""Texts packed into windows of tokens, none across a border."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from family.losses.language_model import IGNORE
from tasks.data.masking import MASKED, RANDOM, Vocabulary, masked, words_of
from tasks.data.sampling import Pick

Part = tuple[int, int]
"""Where a text, or a part of one, begins and ends in a row of tokens."""


def parts_of(tokens: NDArray[Any], end: int | None, room: int) -> Iterator[Part]:
    """The texts of a row of tokens; of longer ones, parts of ``room`` tokens.

    Args:
        end: the token behind each text, which is none of it; None where there is one text.
    """
    ends = [] if end is None else np.flatnonzero(tokens == end).tolist()
    start = 0
    for stop in (*ends, len(tokens)):
        for first in range(start, stop, room):
            yield first, min(first + room, stop)
        start = stop + 1


def packed(parts: Iterator[Part], context: int, around: int) -> list[list[Part]]:
    """Windows of parts that follow each other, as many as fit.

    Args:
        context: tokens of a window.
        around: special tokens that each part has around it.
    """
    windows: list[list[Part]] = []
    left = 0
    for start, stop in parts:
        size = stop - start + around
        if size > left:
            windows.append([])
            left = context
        windows[-1].append((start, stop))
        left -= size
    return windows


class MaskedWindows(Dataset[Any]):
    """Windows of packed texts, with tokens hidden; a whole batch is fetched at once.

    What is hidden is drawn by ``(seed, epoch, window)``: anew in each epoch, and the same in a run that
    is resumed, or whose batches are of another size.

    Args:
        tokens: of all texts, behind each ``end``; see :func:`parts_of`.
        context: tokens of a window, special ones included.
        ends: special tokens before and behind each text, or part of one.
        pad_id: of what fills a window up.
        whole_words: hide whole words.
        shares: what hidden tokens become, see :func:`~tasks.data.masking.masked`.
    """

    def __init__(
        self,
        tokens: NDArray[Any],
        end: int | None,
        context: int,
        ends: tuple[list[int], list[int]],
        pad_id: int,
        vocabulary: Vocabulary,
        whole_words: bool,
        seed: int,
        shares: tuple[float, float] = (MASKED, RANDOM),
    ) -> None:
        around = len(ends[0]) + len(ends[1])
        self.windows = packed(parts_of(tokens, end, context - around), context, around)
        self.tokens, self.context, self.ends, self.pad_id = tokens, context, ends, pad_id
        self.vocabulary, self.whole_words, self.seed = vocabulary, whole_words, seed
        self.shares = shares
        self.several = any(len(window) > 1 for window in self.windows)

    def __len__(self) -> int:
        return len(self.windows)

    def row(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The tokens of a window as they are, and the number of each one's text in it."""
        before, behind = self.ends
        texts = [[*before, *self.tokens[a:b].tolist(), *behind] for a, b in self.windows[index]]
        numbers = [np.full(len(text), number) for number, text in enumerate(texts)]
        return np.concatenate(texts).astype(np.int64), np.concatenate(numbers)

    def __getitems__(self, picks: list[Pick]) -> dict[str, Tensor]:
        input_ids = torch.full((len(picks), self.context), self.pad_id)
        labels = torch.full_like(input_ids, IGNORE)
        mask = torch.zeros_like(input_ids, dtype=torch.bool)
        documents = torch.full_like(input_ids, -1)
        for i, pick in enumerate(picks):
            ids, texts = self.row(pick.index)
            random = np.random.default_rng([self.seed, pick.epoch, pick.index])
            words = words_of(ids, texts, self.vocabulary, self.whole_words)
            seen, hidden = masked(ids, words, self.vocabulary, random, self.shares)
            for rows, values in ((input_ids, seen), (labels, hidden), (documents, texts)):
                rows[i, : len(ids)] = torch.from_numpy(values)
            mask[i, : len(ids)] = True
        batch = {"input_ids": input_ids, "labels": labels, "mask": mask}
        return {**batch, "documents": documents} if self.several else batch
