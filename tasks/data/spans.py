"""Which spans of a text are left out, and what becomes of it (Raffel et al. 2020, section 3.1.4)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from family.inputs.encode import pad_rows
from family.losses.language_model import IGNORE
from tasks.data.packing import parts_of
from tasks.data.sampling import Pick

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Lengths(NamedTuple):
    """Of a chunk: its tokens, those of them that are left out, in how many spans, and the tokens that
    become of it in the source and in the target, sentinels and end included."""

    tokens: int
    noise: int
    spans: int
    source: int
    target: int


def lengths(tokens: int, density: float, mean: float) -> Lengths:
    """What becomes of so many tokens.

    Args:
        density: the share that is left out.
        mean: tokens of a span.
    """
    noise = round(tokens * density)
    spans = round(noise / mean)
    return Lengths(tokens, noise, spans, tokens - noise + spans + 1, noise + spans + 1)


def fitting(source: int, density: float, mean: float) -> Lengths:
    """The longest chunk that becomes a source of at most so many tokens, as the original's
    ``random_spans_helper`` finds it: at a density of a half, of a target that is no longer either."""
    tokens = source
    while tokens > 1 and lengths(tokens, density, mean).source > source:
        tokens -= 1
    while lengths(tokens + 1, density, mean).source <= source:
        tokens += 1
    found = lengths(tokens, density, mean)
    if density == 0.5 and found.target > source:
        found = lengths(tokens - 1, density, mean)
    return found


def segments(items: int, parts: int, random: np.random.Generator) -> Ids:
    """Lengths of so many parts, in order, none of them empty; all ways to divide are equally likely."""
    borders = np.sort(random.permutation(items - 1)[: parts - 1]) + 1
    return np.diff(borders, prepend=0, append=items)


def hidden_spans(
    tokens: int, density: float, mean: float, random: np.random.Generator, anywhere: bool = False
) -> Flags:
    """Which tokens of a chunk are left out, ``(tokens,)``, as by the original's
    ``random_spans_noise_mask``: what is kept and what is not take turns, and a span is the last.

    One token at least is left out, and one kept.

    Args:
        tokens: two at least.
        anywhere: a span may be the first, and none need be the last.
    """
    noise = min(max(round(tokens * density), 1), tokens - 1)
    spans = min(max(round(noise / mean), 1), tokens - noise)
    left_out = segments(noise, spans, random)
    turns = np.zeros(2 * spans + 1, dtype=np.int64)
    turns[1::2] = left_out
    if anywhere:
        turns[::2] = segments(tokens - noise + 2, spans + 1, random)
        turns[[0, -1]] -= 1
    else:
        turns[:-1:2] = segments(tokens - noise, spans, random)
    return np.repeat(np.arange(len(turns)) % 2 == 1, turns)


def corrupted(ids: Ids, hidden: Flags, sentinels: Ids) -> tuple[Ids, Ids]:
    """A chunk with a sentinel in the place of each span, and the spans, each behind its sentinel."""
    first = hidden & ~np.concatenate([[False], hidden[:-1]])
    marks = sentinels[: first.sum()]
    source = ids.copy()
    source[first] = marks
    target = np.insert(ids[hidden], np.flatnonzero(first[hidden]), marks)
    return source[first | ~hidden], target


class CorruptedChunks(Dataset[Any]):
    """Chunks of texts, with spans left out; a whole batch is fetched at once.

    What is left out is drawn by ``(seed, epoch, chunk)``: anew in each epoch, and the same in a run that is
    resumed, whose batches are of another size, or that other processes load.

    Chunks of the whole length are as the original makes them. Its last token is always left out: of a short
    text, with one span, that would be all that is ever asked for, so that in shorter chunks spans are
    anywhere.

    Args:
        tokens: of all texts, behind each ``end``; see :func:`~tasks.data.packing.parts_of`.
        length: tokens of a chunk, at most.
        noise: density and mean length of the spans.
        sentinels: their ids, that of the first span first.
        ends: the ids that a target begins with, that end source and target, and that fill them up.
    """

    def __init__(
        self,
        tokens: NDArray[Any],
        end: int | None,
        length: int,
        noise: tuple[float, float],
        sentinels: list[int],
        ends: tuple[int, int, int],
        seed: int,
    ) -> None:
        self.parts = [(a, b) for a, b in parts_of(tokens, end, length) if b - a > 1]
        self.tokens, self.length, self.noise, self.seed = tokens, length, noise, seed
        self.sentinels, self.ends = np.array(sentinels), ends

    def __len__(self) -> int:
        return len(self.parts)

    def pair(self, pick: Pick) -> tuple[list[int], list[int]]:
        """Source and labels of a chunk, with their ends."""
        start, stop = self.parts[pick.index]
        random = np.random.default_rng([self.seed, pick.epoch, pick.index])
        shorter = stop - start < self.length
        hidden = hidden_spans(stop - start, *self.noise, random, anywhere=shorter)
        ids = self.tokens[start:stop].astype(np.int64)
        source, target = corrupted(ids, hidden, self.sentinels)
        return [*source.tolist(), self.ends[1]], [*target.tolist(), self.ends[1]]

    def __getitems__(self, picks: list[Pick]) -> dict[str, Tensor]:
        start, _, padding = self.ends
        sources, targets = zip(*map(self.pair, picks), strict=True)
        source = pad_rows(list(sources), -1)
        mask = source >= 0
        return {
            "source": torch.where(mask, source, padding),
            "source_mask": mask,
            "target": pad_rows([[start, *row[:-1]] for row in targets], padding),
            "labels": pad_rows(list(targets), IGNORE),
        }
