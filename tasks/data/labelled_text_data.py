"""Texts, or pairs of texts, with a label each, in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from family.inputs.encode import with_ends
from family.inputs.text_pairs import check_room, encode_pairs, with_pairs
from tasks.data.captions import TABLES
from tasks.data.label_lists import LabelColumns
from tasks.data.labelled_texts import LABEL_COLUMNS, LabelledText, read_labelled
from tasks.data.split_files import own_file, shared_file
from tasks.data.text_data import TextData
from tasks.data.text_files import Column
from tasks.data.tokenizers import Tokenizer
from tasks.errors import UserError, user_errors

Batch = dict[str, Any]
Label = int | float | list[float]
"""Of a row with several labels, 1 for each that it has."""
Example = tuple[LabelledText, Label | None, int]
"""A row, its label, and which row of its table it is."""


class LabelledTextData(TextData[LabelledText]):
    """Texts, or pairs of texts, of tables with a label each; what the label is, subclasses say.

    A pair is one row of tokens, as the tokenizer's own template has it (BERT's [CLS] a [SEP] b [SEP]);
    where it is too long, the longer text loses its end, as with transformers' ``truncation=True``.

    Args:
        root: a folder with a table for each split, ``SPLIT.tsv``, ``.csv`` or ``.jsonl``, whose
            first line names the columns; or one table of everything, or the folder of it, which is
            divided. None is the built-in world of shapes.
        text_column, label_column: without them columns with usual names are found. Numbers, from 0 on,
            are those of tables whose first line names nothing.
        pair_column: the second text of a pair; without it, it is found where both texts have usual
            names: sentence1 and sentence2, premise and hypothesis, question1 and question2, question and
            answer, text1 and text2.
        group_column: rows that are equal in it are held out together, as those of one author; without
            it, rows of the same (first) text.
        quotes: fields of a ``.tsv`` may stand in quotes, as spreadsheets write them (and as they may in
            a ``.csv``); without it a quote is a character like any other.
        options: of :class:`~tasks.data.text_data.TextData`; texts of more than ``max_tokens`` lose their
            end.
    """

    endings = TABLES
    usual_labels: Sequence[str] = LABEL_COLUMNS
    """What the column of labels is called, where nobody says so."""
    several: LabelColumns | None = None
    """Where the labels of rows with several stand; None is one each."""

    def __init__(
        self,
        root: str | None = None,
        text_column: Column = None,
        pair_column: Column = None,
        label_column: Column = None,
        group_column: Column = None,
        quotes: bool = False,
        **options: Any,
    ) -> None:
        self.quotes = quotes
        super().__init__(root, **options)
        self.columns = (text_column, label_column, group_column)
        self.pair_column = pair_column
        self._pairs: bool | None = None
        """Whether texts are pairs: by a checkpoint, or by what was read first."""

    # --- What there is ---

    def rows(self, split: str) -> list[LabelledText]:
        """As there; single texts among pairs are refused, and the other way about."""
        return self._alike(super().rows(split))

    def read(self, file: Path, needed: bool = True) -> list[LabelledText]:
        """See :func:`~tasks.data.labelled_texts.read_labelled`."""
        more = self.pair_column, self.usual_labels, self.several
        return read_labelled(file, *self.columns, self.quotes, needed, *more)

    def _alike(self, rows: list[LabelledText]) -> list[LabelledText]:
        """The rows, if they are pairs or single texts as all are."""
        if not rows:
            return rows
        found, where = rows[0].pair is not None, rows[0].where
        if self._pairs is None:
            self._pairs = found
        if self._pairs and not found:
            raise UserError(
                f"{where} has one text, but pairs are read: data.pair_column may name the second."
            )
        if found and not self._pairs:
            raise UserError(
                f"{where} is a pair of texts, but single ones are read: data.text_column may name one."
            )
        return rows

    def labels(self, split: str) -> Sequence[Label]:
        """The label of each row, as a model learns it.

        Raises:
            UserError: one that is none.
        """
        raise NotImplementedError

    # --- What Lightning and tasks ask for ---

    def written(self) -> Iterator[str]:
        for row in self.rows("train"):
            yield row.text
            if row.pair is not None:
                yield row.pair

    def said(self, row: LabelledText) -> Sequence[str]:
        return [row.text] if row.pair is None else [row.text, row.pair]

    def check(self, split: str) -> None:
        self.labels(split)

    def _tokenizer(self) -> Tokenizer:
        tokenizer = super()._tokenizer()
        if self._pairs:
            with user_errors():
                with_pairs(tokenizer)
        return tokenizer

    def assets(self) -> dict[str, Any]:
        known: dict[str, Any] = {} if self._pairs is None else {"pairs": self._pairs}
        if self.problem_type is not None:
            known["problem_type"] = self.problem_type
        return {**super().assets(), **known}

    def use_assets(self, assets: dict[str, Any]) -> None:
        super().use_assets(assets)
        self._pairs = assets.get("pairs")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The texts of "test", or all of one table without labels; batches have none then."""
        file, name = None, self.splits["test"]
        if self.root is not None:
            whole, parts = shared_file(self.root, self.splits, self.endings)
            file = whole if "test" in parts else own_file(self.root, name, self.endings)
        if file is not None:
            rows = self._alike(self.read(file, needed=False))
            if not any(row.label for row in rows):
                return self._loader("test", rows, [None] * len(rows), range(len(rows)))
        return self.loader("test")

    def loader(self, split: str) -> DataLoader[Any]:
        return self._loader(split, self.rows(split), self.labels(split), self.places(split))

    def _loader(
        self,
        split: str,
        rows: list[LabelledText],
        labels: Sequence[Label | None],
        places: Sequence[int],
    ) -> DataLoader[Any]:
        tokenizer = self._tokenizer()
        examples: list[Example] = list(zip(rows, labels, places, strict=True))
        batch = partial(collate, tokenizer, self.max_tokens)
        return self.batches(split, examples, self._lengths(tokenizer, rows), batch)

    def _lengths(self, tokenizer: Tokenizer, rows: list[LabelledText]) -> list[int]:
        """The tokens of each row."""
        if self._pairs:
            with user_errors():
                check_room(tokenizer, self.max_tokens)
            pairs = [(row.text, str(row.pair)) for row in rows]
            return [len(ids) for ids, _ in tokenizer.encode_pairs(pairs, self.max_tokens)]
        found = tokenizer.encode_batch([row.text for row in rows], special_tokens=True)
        return [min(len(row), self.max_tokens) for row in found]


def collate(tokenizer: Tokenizer, max_tokens: int, examples: list[Example]) -> Batch:
    """A batch of :class:`LabelledTextData`; without labels, where there are none."""
    rows, labels, lines = zip(*examples, strict=True)
    texts, pairs = [row.text for row in rows], [row.pair for row in rows]
    known = {} if None in labels else {"labels": torch.tensor(labels)}
    beside = {} if None in pairs else {"pair": pairs}
    if beside:
        inputs: Batch = encode_pairs(tokenizer, texts, pairs, max_tokens)._asdict()
    else:
        inputs = dict(
            zip(("input_ids", "mask"), encode_texts(tokenizer, texts, max_tokens), strict=True)
        )
    return {**inputs, **known, "text": texts, **beside, "line": list(lines)}


def encode_texts(
    tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int
) -> tuple[Tensor, Tensor]:
    """Texts as a classifier reads them: ids ``(texts, tokens)`` and their mask, True = a token.

    Each stands between the special tokens that its tokenizer adds, and loses its end where it is
    longer than ``max_tokens``.
    """
    return with_ends(tokenizer).batch(texts, max_tokens)
