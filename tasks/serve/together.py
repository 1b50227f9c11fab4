"""Texts that begin at the same time grow as one batch."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import torch

from family import Sampling
from family.generation.defaults import defaults_of
from family.inference.batches import device_of
from family.inference.texts import stops_of
from family.inputs.encode import pad_rows
from family.models.member import longest_text

ENDED = -1
"""Of a row that has stopped: no token's id."""


@dataclass
class Row:
    """A text of a batch: its prompt, how many new tokens it may have, and those that nobody has taken."""

    ids: list[int]
    count: int
    generator: torch.Generator
    made: deque[int] = field(default_factory=deque)


class Batch:
    """Prompts that are read together, once the first token of one of them is asked for.

    Args:
        sampling: of all of them; each row draws from a generator of its own, so that its text is the one
            that it would be alone.
    """

    def __init__(self, model: Any, sampling: Sampling) -> None:
        self.model, self.sampling = model, sampling
        self.rows: list[Row] = []
        self.stream: Iterator[Any] | None = None
        self.error: Exception | None = None

    def fits(self, row: Row) -> bool:
        """Whether a row may still come: the longest prompt goes on as long as any text."""
        rows = [*self.rows, row]
        longest = max(len(one.ids) for one in rows) + max(one.count for one in rows)
        untouched = self.stream is None and self.error is None
        return untouched and longest <= longest_text(self.model)

    def step(self) -> None:
        """One token more of each row.

        Raises:
            StopIteration: there is none.
            Exception: what failed, now or for another row before: it ends the text of each of them.
        """
        if self.error is not None:
            raise self.error
        try:
            if self.stream is None:
                self.stream = self.begun()
            tokens = next(self.stream).tolist()
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            traceback.clear_frames(error.__traceback__)  # or it would hold the cache
            raise
        for row, token in zip(self.rows, tokens, strict=True):
            row.made.append(token)

    def begun(self) -> Iterator[Any]:
        rows = self.rows
        ids = pad_rows([row.ids for row in rows], ENDED).to(device_of(self.model))
        return self.model.stream(
            ids.clamp(min=0),
            ids >= 0 if len(rows) > 1 else None,
            max_new_tokens=max(row.count for row in rows),
            sampling=self.sampling,
            generator=[row.generator for row in rows],
            stop_ids=stops_of(self.model),
            pad_id=ENDED,
        )

    def tokens(self, row: Row) -> Iterator[int]:
        """The tokens of a row, in turn; the others get theirs at the same time."""
        for _ in range(row.count):
            if not row.made:
                try:
                    self.step()
                except StopIteration:
                    return
            token = row.made.popleft()
            if token == ENDED:
                return
            yield token


class Together:
    """Finds for each text of a model the batch that it may join; in the model's thread alone."""

    def __init__(self, model: Any) -> None:
        self.model = model
        # Held by the texts that are read from them alone, and let go with their cache.
        self.open: WeakValueDictionary[tuple[Sampling, int, int], Batch] = WeakValueDictionary()

    def join(
        self, ids: list[int], count: int, sampling: Sampling, generator: torch.Generator
    ) -> Iterator[int]:
        """The new tokens of a text, in turn. It is read with others that are asked for before the first of
        these tokens is, that are drawn alike, and that are, as their answers, less than twice as long."""
        row = Row(ids, count, generator)
        own = defaults_of(self.model)
        # The least length of prompt and answer together is counted from the longest prompt of a batch.
        counted = own.min_length and not own.min_new_tokens
        key = sampling, len(ids) if counted else len(ids).bit_length(), count.bit_length()
        batch = self.open.get(key)
        if batch is None or not batch.fits(row):
            batch = self.open[key] = Batch(self.model, sampling)
        batch.rows.append(row)
        return batch.tokens(row)
