"""Texts and their classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from family.inputs.encode import with_ends
from tasks.data.base import FamilyData
from tasks.data.batching import TokenBatches, token_loader
from tasks.data.labelled_texts import (
    LabelledText,
    class_names,
    find_table,
    labelled_shapes,
    own_table,
    read_labelled,
    shared_table,
)
from tasks.data.splits import divide, nothing_held_out
from tasks.data.tokenizers import Tokenizer, make_tokenizer
from tasks.errors import UserError, at_least, between, closest

Batch = dict[str, Any]


class TextClassificationData(FamilyData):
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
        train, val, test: the splits' names; "val" is also found as valid, validation or dev.
        text_column, label_column: without them columns with usual names are found.
        val_fraction, test_fraction: the shares of one table; "val" comes from "train" where only that
            has no file.
        group_column: rows that are equal in it are held out together, as those of one author; without
            it, rows of the same text.
        split_seed: other numbers divide otherwise.
        quotes: fields of a ``.tsv`` may stand in quotes, as spreadsheets write them (and as they may in
            a ``.csv``); without it a quote is a character like any other.
        tokenizer: "bpe", "unigram" or "char", trained on the training split alone; or one that exists, by
            the path of a ``tokenizer.json``, a folder, a run or a published source.
        vocab_size: for bpe and unigram.
        lowercase: see lower-cased text alone.
        max_tokens: longer texts lose their end; the tokens that mark begin and end count.
            A checkpoint brings its own, with which it is evaluated too.
        batch_size: texts of a batch.
        examples: training sentences of the built-in world.
    """

    task = "TextClassification"
    decided = ("tokenizer", "vocab_size", "lowercase", "max_tokens")

    def __init__(
        self,
        root: str | None = None,
        train: str = "train",
        val: str = "val",
        test: str = "test",
        text_column: str | None = None,
        label_column: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        group_column: str | None = None,
        split_seed: int = 0,
        quotes: bool = False,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        lowercase: bool = False,
        max_tokens: int = 128,
        batch_size: int = 32,
        examples: int = 8000,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size, examples=examples)
        at_least(0, num_workers=num_workers, seed=seed)
        at_least(3, max_tokens=max_tokens)
        between(0, 1, val_fraction=val_fraction, test_fraction=test_fraction)
        self.root = None if root is None else Path(root)
        self.splits = {"train": train, "val": val, "test": test}
        self.columns, self.quotes = (text_column, label_column, group_column), quotes
        self.shares = {"val": val_fraction, "test": test_fraction}
        self.split_seed = split_seed
        self.kind, self.vocab_size, self.lowercase = tokenizer, vocab_size, lowercase
        self.max_tokens, self.batch_size, self.examples = max_tokens, batch_size, examples
        self.seed, self.num_workers = seed, num_workers
        self.tokenizer: Tokenizer | None = None
        self.given: list[str] | None = None
        self._rows: dict[str, list[LabelledText]] = {}
        self._lines: dict[str, list[int]] = {}
        """The rows of each part of a table."""
        self._divided_classes: list[str] | None = None

    # --- What there is ---

    def rows(self, split: str) -> list[LabelledText]:
        """The texts of "train", "val" or "test" with their classes.

        Raises:
            UserError: see :func:`~tasks.data.labelled_texts.read_labelled`.
        """
        if split not in self._rows:
            if self.root is None:
                count = self.examples if split == "train" else max(100, self.examples // 10)
                self._rows[split] = labelled_shapes(count, self.seed, split)
            else:
                self._read(self.root, split)
        return self._rows[split]

    def _read(self, root: Path, split: str) -> None:
        """Read a split's own file, or divide the table that it is a part of."""
        file, parts = shared_table(root, self.splits)
        if file is None or split not in parts:
            file = find_table(root, split, self.splits[split])
            self._rows[split] = read_labelled(file, *self.columns, self.quotes)
            return
        rows = read_labelled(file, *self.columns, self.quotes)
        # Of all parts; and one class alone is a clearer mistake than a split without rows.
        self._divided_classes = class_names(rows)
        shares = {name: self.shares[name] for name in parts if name != "train"}
        groups = [row.group or row.text for row in rows]
        self._lines = found = divide([row.label for row in rows], groups, shares, self.split_seed)
        self._rows |= {name: [rows[i] for i in indices] for name, indices in found.items()}

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

    def _places(self, split: str) -> Sequence[int]:
        """Which rows of their table the texts of a split are."""
        return self._lines.get(split) or range(len(self.rows(split)))

    # --- What Lightning and tasks ask for ---

    def _tokenizer(self) -> Tokenizer:
        """A checkpoint's, that of the first process, or trained now."""
        if self.tokenizer is None:
            texts = (row.text for row in self.rows("train"))
            self.tokenizer = make_tokenizer(self.kind, texts, self.vocab_size, self.lowercase)
            with_ends(self.tokenizer)
        return self.tokenizer

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self._tokenizer()
        # Read now, so that a mistake in the files ends the run before it began.
        if stage in (None, "fit"):
            self.labels("train")
        if stage in (None, "fit", "validate"):
            self.labels("val")

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``vocab_size`` and ``num_classes``."""
        return {"vocab_size": self._tokenizer().vocab_size, "num_classes": len(self.classes)}

    def assets(self) -> dict[str, Any]:
        return {
            "tokenizers": {"text": self._tokenizer().to_json()},
            "labels": list(self.classes),
            "max_tokens": self.max_tokens,
        }

    def class_counts(self) -> list[int]:
        """The training texts of each class."""
        return np.bincount(self.labels("train"), minlength=len(self.classes)).tolist()

    def use_assets(self, assets: dict[str, Any]) -> None:
        """As of a checkpoint; without ``labels`` the classes are those of the training split."""
        self.tokenizer = Tokenizer.from_json(assets["tokenizers"]["text"])
        self.given = assets.get("labels")
        self.max_tokens = assets.get("max_tokens") or self.max_tokens

    def predict_dataloader(self) -> DataLoader[Any]:
        """The texts of "test", or all of one table without labels; batches have none then."""
        file = None
        if self.root is not None:
            whole, parts = shared_table(self.root, self.splits)
            file = whole if "test" in parts else own_table(self.root, self.splits["test"])
        if file is not None:
            rows = read_labelled(file, *self.columns, self.quotes, needed=False)
            if not any(row.label for row in rows):
                return self._batches("test", [row.text for row in rows], None)
        return self.loader("test")

    def loader(self, split: str) -> DataLoader[Any]:
        return self._batches(split, [row.text for row in self.rows(split)], self.labels(split))

    def _batches(self, split: str, texts: list[str], labels: list[int] | None) -> DataLoader[Any]:
        if not texts:
            raise nothing_held_out(split)
        tokenizer = with_ends(self._tokenizer())
        lines: Sequence[int] = range(len(texts)) if labels is None else self._places(split)
        known: list[int | None] = [None] * len(texts) if labels is None else [*labels]
        ids = tokenizer.encode_batch(texts, special_tokens=True)
        sampler = TokenBatches(
            [min(len(row), self.max_tokens) for row in ids],
            self.batch_size * self.max_tokens,
            split == "train",
            self.order_seed,
            self.progress,
            max_rows=self.batch_size,
        )
        examples = list(zip(texts, known, lines, strict=True))
        batch = partial(collate, tokenizer, self.max_tokens)
        return token_loader(examples, sampler, batch, self.num_workers)


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
