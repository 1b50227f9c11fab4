"""Pairs of texts that belong together, or that are near each other by a number."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from tasks.data.captions import TABLES
from tasks.data.pairs import numbered
from tasks.data.sentence_pair_files import (
    SentencePair,
    caption_pairs,
    groups_of,
    read_sentence_pairs,
)
from tasks.data.text_data import TextData
from tasks.data.text_files import Column
from tasks.data.tokenizers import Tokenizer
from tasks.errors import UserError

Batch = dict[str, Any]
SIDES = (("input_ids", "mask"), ("pair_ids", "pair_mask"), ("negative_ids", "negative_mask"))


class Example(NamedTuple):
    """A pair, the numbers of its texts, and its label from 0 to 1."""

    pair: SentencePair
    ids: list[int]
    label: float | None


class SentencePairsData(TextData[SentencePair]):
    """Pairs of texts, tokenized, in batches of like length: pairs that belong together, maybe with a text
    that does not; or pairs with a number that says how near they are.

    A batch:

    - ``input_ids (batch, tokens)`` int64: the first texts, between the special tokens that the tokenizer
      adds (``<bos>`` and ``<eos>``), padded at the right;
    - ``mask (batch, tokens)`` bool: True = a token;
    - ``pair_ids (batch, tokens)`` int64, and ``pair_mask (batch, tokens)`` bool: the second texts;
    - ``negative_ids (batch, tokens)`` int64, and ``negative_mask (batch, tokens)`` bool: texts that do not
      belong to the first, where the file has them;
    - ``text_ids (batch, texts)`` int64: of the two or three texts of a row, equal over the whole split
      where a text is the same;
    - ``labels (batch,)`` float32: how near the two are, from 0 to 1, where the file says it;
    - ``text``, ``pair``: lists of the raw texts; ``file``, ``line``: lists of where they stand.

    Args:
        root: a folder with a table for each split, ``SPLIT.tsv``, ``.csv`` or ``.jsonl``; or one table
            of everything, which is divided: pairs that share a text stay together. None is the built-in
            world of shapes: captions in English and in French.
        text_column, pair_column, label_column, negative_column: by name, or of tables whose first line
            is a pair like the others, by number from 0 on; without them columns with usual names
            are found (sentence1 and sentence2, anchor and positive ..., score, negative), or in a table
            that names none the texts in the first two columns, and in a third a number or a negative.
        label_range: the numbers that mean "nothing in common" and "the same"; None is the least and the
            largest of the training split, or a checkpoint's.
        quotes: fields of a ``.tsv`` may stand in quotes, as they may in a ``.csv``.
        options: of :class:`~tasks.data.text_data.TextData`; texts of more than ``max_tokens`` lose their
            end.
    """

    task = "SentenceEmbedding"
    endings = TABLES

    def __init__(
        self,
        root: str | None = None,
        text_column: Column = None,
        pair_column: Column = None,
        label_column: Column = None,
        negative_column: Column = None,
        label_range: tuple[float, float] | None = None,
        quotes: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        if label_range is not None and not label_range[0] < label_range[1]:
            raise UserError(
                f"data.label_range={list(label_range)} must be two numbers, the least first."
            )
        self.columns = (text_column, pair_column, label_column, negative_column)
        self.quotes = quotes
        self.limits, self._settled = label_range, label_range is not None

    # --- What there is ---

    def generated(self, count: int, split: str) -> list[SentencePair]:
        return caption_pairs(count, self.seed, split)

    def read(self, file: Path) -> list[SentencePair]:
        """See :func:`~tasks.data.sentence_pair_files.read_sentence_pairs`."""
        return read_sentence_pairs(file, self.columns, self.quotes)

    def kinds(self, rows: list[SentencePair]) -> tuple[Sequence[Hashable], Sequence[str]]:
        return [0] * len(rows), groups_of(rows)

    def said(self, row: SentencePair) -> Sequence[str]:
        return list(row.texts)

    def written(self) -> Iterable[str]:
        return (text for row in self.rows("train") for text in row.texts)

    def has_numbers(self, split: str) -> bool:
        """Whether a split says how near its pairs are."""
        return self.rows(split)[0].label is not None

    @property
    def label_range(self) -> tuple[float, float] | None:
        """The numbers that stand for 0 and 1: given, a checkpoint's, or those of the training split; None
        where it has none.

        Raises:
            UserError: all are the same.
        """
        if not self._settled:
            found = [row.label for row in self.rows("train") if row.label is not None]
            if found:
                self.limits = min(found), max(found)
                if self.limits[0] == self.limits[1]:
                    where = self.rows("train")[0].where
                    raise UserError(
                        f"every pair has the label {found[0]:g} (from {where} on): which are nearer than "
                        "others is not said."
                    )
            self._settled = True
        return self.limits

    def labels(self, split: str) -> list[float | None]:
        """Of each pair its number, from 0 to 1.

        Raises:
            UserError: one outside of the range.
        """
        found: list[float | None] = []
        for row in self.rows(split):
            if row.label is None:
                found.append(None)
                continue
            low, high = self.label_range or (0.0, 1.0)
            if not low <= row.label <= high:
                raise UserError(
                    f"{row.where} has the label {row.label:g}, which is not between {low:g} and "
                    f"{high:g}: data.label_range=[LEAST,MOST] says what numbers there are."
                )
            found.append((row.label - low) / (high - low))
        return found

    # --- What Lightning and tasks ask for ---

    def check(self, split: str) -> None:
        self.labels(split)

    def assets(self) -> dict[str, Any]:
        known = self.label_range
        return {**super().assets(), "label_range": None if known is None else list(known)}

    def use_assets(self, assets: dict[str, Any]) -> None:
        """As of a checkpoint, but a ``label_range`` that is given stays: it says what these files mean."""
        super().use_assets(assets)
        if "label_range" in assets and not self._settled:
            known = assets["label_range"]
            self.limits, self._settled = None if known is None else (known[0], known[1]), True

    def loader(self, split: str) -> DataLoader[Any]:
        rows, tokenizer = self.rows(split), self._tokenizer()
        texts = [text for row in rows for text in row.texts]
        width = len(rows[0].texts) if rows else 2
        ids, lengths = (
            [values[i : i + width] for i in range(0, len(texts), width)]
            for values in (
                numbered(texts),
                [len(row) for row in tokenizer.encode_batch(texts, special_tokens=True)],
            )
        )
        examples = list(map(Example, rows, ids, self.labels(split)))
        longest = [min(max(each), self.max_tokens) for each in lengths]
        return self.batches(split, examples, longest, partial(collate, tokenizer, self.max_tokens))


def collate(tokenizer: Tokenizer, max_tokens: int, examples: list[Example]) -> Batch:
    """A batch of :class:`SentencePairsData`."""
    batch: Batch = {}
    sides = zip(*(example.pair.texts for example in examples), strict=True)
    for (ids, mask), texts in zip(SIDES, sides, strict=False):
        batch[ids], batch[mask] = tokenizer.batch(texts, max_tokens)
    batch["text_ids"] = torch.tensor([example.ids for example in examples])
    if examples[0].label is not None:
        batch["labels"] = torch.tensor([example.label for example in examples])
    pairs = [example.pair for example in examples]
    return {
        **batch,
        "text": [pair.text for pair in pairs],
        "pair": [pair.pair for pair in pairs],
        "file": [pair.file for pair in pairs],
        "line": [pair.line for pair in pairs],
    }
