"""Texts and their classes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from family.inputs.encode import with_ends
from tasks.data.captions import TABLES
from tasks.data.labelled_texts import (
    LabelledText,
    class_names,
    labelled_shapes,
    read_labelled,
)
from tasks.data.split_files import own_file, shared_file
from tasks.data.text_data import TextData
from tasks.data.tokenizers import Tokenizer
from tasks.errors import UserError, closest

Batch = dict[str, Any]


class TextClassificationData(TextData[LabelledText]):
    """Texts and their classes, tokenized, in batches of like length.

    The classes are those of the training split, of a table that is divided those of all of it, in the
    order of their names, or of their numbers.

    A batch:

    - ``input_ids (batch, tokens)`` int64: between the special tokens that the tokenizer adds
      (``<bos>`` and ``<eos>``), padded at the right;
    - ``mask (batch, tokens)`` bool: True = a token;
    - ``labels (batch,)`` int64: ids of the classes;
    - ``text``: list of the raw texts; ``line``: list of their rows from 0, in the table as it is stored.

    Args:
        root: a folder with a table for each split, ``SPLIT.tsv``, ``.csv`` or ``.jsonl``, whose
            first line names the columns (a ``.tsv`` of two columns may do without: a sentence, a
            tab, a label); or one table of everything, or the folder of it, which is divided: every
            class gives its share to "val" and to "test". None is the built-in world of shapes: which
            of two shapes is at the left or on top.
        text_column, label_column: without them columns with usual names are found.
        group_column: rows that are equal in it are held out together, as those of one author; without
            it, rows of the same text.
        quotes: fields of a ``.tsv`` may stand in quotes, as spreadsheets write them (and as they may in
            a ``.csv``); without it a quote is a character like any other.
        options: of :class:`~tasks.data.text_data.TextData`; texts of more than ``max_tokens`` lose their
            end.
    """

    task = "TextClassification"
    endings = TABLES

    def __init__(
        self,
        root: str | None = None,
        text_column: str | None = None,
        label_column: str | None = None,
        group_column: str | None = None,
        quotes: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.columns, self.quotes = (text_column, label_column, group_column), quotes
        self.given: list[str] | None = None
        self._divided_classes: list[str] | None = None

    # --- What there is ---

    def generated(self, count: int, split: str) -> list[LabelledText]:
        return labelled_shapes(count, self.seed, split)

    def read(self, file: Path) -> list[LabelledText]:
        """See :func:`~tasks.data.labelled_texts.read_labelled`."""
        return read_labelled(file, *self.columns, self.quotes)

    def kinds(self, rows: list[LabelledText]) -> tuple[Sequence[Hashable], Sequence[str]]:
        # Of all parts; and one class alone is a clearer mistake than a split without rows.
        self._divided_classes = class_names(rows)
        return [row.label for row in rows], [row.group or row.text for row in rows]

    @property
    def classes(self) -> list[str]:
        """Their names, in the order of the ids: a checkpoint's, or those of the training split."""
        if self.given is None:
            rows = self.rows("train")
            self.given = self._divided_classes or class_names(rows)
        return self.given

    def labels(self, split: str) -> list[int]:
        """The id of each text's class.

        Raises:
            UserError: a class that is none of ours.
        """
        ids = {name: i for i, name in enumerate(self.classes)}
        for row in self.rows(split):
            if row.label not in ids:
                known = f"{', '.join(self.classes[:5])}{' ...' if len(ids) > 5 else ''}"
                raise UserError(
                    f"{row.where} has the label {row.label!r}, which is none of the {len(ids)} "
                    f"classes ({known}).{closest(row.label, ids)}"
                )
        return [ids[row.label] for row in self.rows(split)]

    # --- What Lightning and tasks ask for ---

    def written(self) -> Iterator[str]:
        return (row.text for row in self.rows("train"))

    def check(self, split: str) -> None:
        self.labels(split)

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``vocab_size`` and ``num_classes``."""
        return {**super().model_arguments, "num_classes": len(self.classes)}

    def assets(self) -> dict[str, Any]:
        return {**super().assets(), "labels": list(self.classes)}

    def class_counts(self) -> list[int]:
        """The training texts of each class."""
        return np.bincount(self.labels("train"), minlength=len(self.classes)).tolist()

    def use_assets(self, assets: dict[str, Any]) -> None:
        """As of a checkpoint; without ``labels`` the classes are those of the training split."""
        super().use_assets(assets)
        self.given = assets.get("labels")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The texts of "test", or all of one table without labels; batches have none then."""
        file = None
        if self.root is not None:
            whole, parts = shared_file(self.root, self.splits, self.endings)
            file = (
                whole if "test" in parts else own_file(self.root, self.splits["test"], self.endings)
            )
        if file is not None:
            rows = read_labelled(file, *self.columns, self.quotes, needed=False)
            if not any(row.label for row in rows):
                return self._loader("test", [row.text for row in rows], None)
        return self.loader("test")

    def loader(self, split: str) -> DataLoader[Any]:
        return self._loader(split, [row.text for row in self.rows(split)], self.labels(split))

    def _loader(self, split: str, texts: list[str], labels: list[int] | None) -> DataLoader[Any]:
        tokenizer = self._tokenizer()
        lines: Sequence[int] = range(len(texts)) if labels is None else self.places(split)
        known: list[int | None] = [None] * len(texts) if labels is None else [*labels]
        ids = tokenizer.encode_batch(texts, special_tokens=True)
        lengths = [min(len(row), self.max_tokens) for row in ids]
        examples = list(zip(texts, known, lines, strict=True))
        return self.batches(split, examples, lengths, partial(collate, tokenizer, self.max_tokens))


def collate(
    tokenizer: Tokenizer, max_tokens: int, examples: list[tuple[str, int | None, int]]
) -> Batch:
    """A batch of :class:`TextClassificationData`; without labels, where there are none."""
    texts, labels, lines = zip(*examples, strict=True)
    input_ids, mask = encode_texts(tokenizer, texts, max_tokens)
    known = {} if None in labels else {"labels": torch.tensor(labels)}
    return {
        "input_ids": input_ids,
        "mask": mask,
        **known,
        "text": list(texts),
        "line": list(lines),
    }


def encode_texts(
    tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int
) -> tuple[Tensor, Tensor]:
    """Texts as a classifier reads them: ids ``(texts, tokens)`` and their mask, True = a token.

    Each stands between the special tokens that its tokenizer adds, and loses its end where it is
    longer than ``max_tokens``.
    """
    return with_ends(tokenizer).batch(texts, max_tokens)
