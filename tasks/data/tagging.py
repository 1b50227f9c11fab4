"""Texts whose words have tags."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from family.inference.tagging import row_of
from family.inputs.encode import pad_rows
from family.inputs.words import encode_words, ends_of, windows
from family.losses.language_model import IGNORE
from tasks.data.tagged_texts import (
    ENDINGS,
    TaggedText,
    check_spans,
    read_tagged,
    tag_names,
    tagged_shapes,
)
from tasks.data.text_data import TextData
from tasks.data.text_files import Column
from tasks.errors import UserError, between, closest, in_short, some_of

Batch = dict[str, Any]


class Piece(NamedTuple):
    """A window of a text: ids, a label for each (``IGNORE`` but where a word of its own begins), the text's
    number, and the first of those words."""

    ids: list[int]
    labels: list[int]
    text: int
    first: int


class TaggingData(TextData[TaggedText]):
    """Words and their tags, in subwords, in batches of like length.

    The first subword of a word carries its tag; the others have none. A text that is too long is read
    in windows that overlap, and each word counts in one of them, in training too: where it has most
    context. The tags are those of the training split, ``O`` first, then in the order of their names.

    A batch:

    - ``input_ids (batch, tokens)`` int64: between the special tokens that the tokenizer adds
      (``<bos>`` and ``<eos>``), padded at the right;
    - ``mask (batch, tokens)`` bool: True = a token;
    - ``labels (batch, tokens)`` int64: the id of the tag where a word begins that counts here, elsewhere
      -100;
    - ``sentence``, ``word``: lists of the number of each row's text, and of the first word that counts;
    - ``words``: of each row the words that count; ``file``, ``line``: where these stand.

    Args:
        root: a folder with a file for each split: CoNLL columns (``.conll``, ``.iob``, ``.iob2``,
            ``.iobes``, ``.bio``, ``.tsv``, ``.txt``: a word a line, a blank line between texts, tabs or
            spaces between columns, ``-DOCSTART-`` left out) or JSON lines (``.jsonl``:
            ``{"tokens": [...], "tags": [...]}``); or one such file of everything, which is divided.
            None is the built-in world of shapes: numbers, colours, shapes and places in captions.
        word_column, tag_column: of CoNLL the columns by their numbers (from 0 on, -1 is the last), of
            JSON lines the fields by their names; without them the first and the last, or the usual
            names.
        spans: the tags mark spans, by IOB1, IOB2 or IOBES; without it they are taken as they are, such
            as parts of speech.
        stride: tokens from the begin of a window of ``max_tokens`` to that of the next; None is half a
            window.
        options: of :class:`~tasks.data.text_data.TextData`; ``batch_size`` counts windows.
    """

    task = "Tagging"
    windows = True
    endings, kind_of_file = ENDINGS, "file of tags"

    def __init__(
        self,
        root: str | None = None,
        word_column: Column = None,
        tag_column: Column = None,
        spans: bool = True,
        stride: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        if stride is not None:
            between(1, self.max_tokens, stride=stride)
        self.columns, self.spans, self.stride = (word_column, tag_column), spans, stride
        self.given: list[str] | None = None

    # --- What there is ---

    def texts(self, split: str) -> list[TaggedText]:
        """The texts of "train", "val" or "test" with their tags.

        Raises:
            UserError: see :func:`~tasks.data.tagged_texts.read_tagged`; tags that mark no spans.
        """
        return self.rows(split)

    def generated(self, count: int, split: str) -> list[TaggedText]:
        return tagged_shapes(count, self.seed, split)

    def read(self, file: Path) -> list[TaggedText]:
        texts = read_tagged(file, *self.columns)
        if self.spans:
            check_spans(texts)
        return texts

    def kinds(self, rows: list[TaggedText]) -> tuple[Sequence[Hashable], Sequence[str]]:
        tag_names(rows)  # one tag alone is a clearer mistake than a split without texts
        return [0] * len(rows), [" ".join(text.words) for text in rows]

    @property
    def classes(self) -> list[str]:
        """The tags, in the order of their ids: a checkpoint's, or those of the training split."""
        if self.given is None:
            self.given = tag_names(self.texts("train"))
        return self.given

    def labels(self, split: str) -> list[list[int]]:
        """The id of each word's tag.

        Raises:
            UserError: a tag that is none of ours.
        """
        ids = {name: i for i, name in enumerate(self.classes)}
        for text in self.texts(split):
            for i, tag in enumerate(text.tags):
                if tag not in ids:
                    raise UserError(
                        f"{text.where(i)} has the tag {in_short(tag)}, which is none of the {len(ids)} tags of "
                        f"the training split ({some_of(self.classes, 5)}).{closest(tag, ids)}"
                    )
        return [[ids[tag] for tag in text.tags] for text in self.texts(split)]

    # --- What Lightning and tasks ask for ---

    def written(self) -> Iterator[str]:
        # Bytes know the space before a word, which the first one gets too when it is cut.
        space = " " if self.kind == "bpe" else ""
        return (space + " ".join(text.words) for text in self.texts("train"))

    def said(self, row: TaggedText) -> Sequence[str]:
        return [" ".join(row.words)]

    def check(self, split: str) -> None:
        self.labels(split)

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``vocab_size`` and ``num_classes``."""
        return {**super().model_arguments, "num_classes": len(self.classes)}

    def assets(self) -> dict[str, Any]:
        return {**super().assets(), "labels": list(self.classes)}

    def class_counts(self) -> list[int]:
        """The training words of each tag."""
        labels = [label for row in self.labels("train") for label in row]
        return torch.bincount(torch.tensor(labels), minlength=len(self.classes)).tolist()

    def use_assets(self, assets: dict[str, Any]) -> None:
        """As of a checkpoint; without ``labels`` the tags are those of the training split."""
        super().use_assets(assets)
        self.given = assets.get("labels")

    def pieces(self, split: str) -> list[Piece]:
        """The windows of all texts; most texts are one."""
        tokenizer = self._tokenizer()
        before, behind = ends_of(tokenizer)
        most = max(1, self.max_tokens - len(before) - len(behind))
        found = []
        for i, (text, tags) in enumerate(zip(self.texts(split), self.labels(split), strict=True)):
            words = encode_words(tokenizer, text.words)
            for window in windows([len(word) for word in words], most, self.stride):
                row, firsts = row_of(words[window.first : window.last], most)
                ids = [*before, *row, *behind]
                labels = [IGNORE] * len(ids)
                for word in range(window.own, window.end):
                    labels[len(before) + firsts[word - window.first]] = tags[word]
                found.append(Piece(ids, labels, i, window.own))
        return found

    def loader(self, split: str) -> DataLoader[Any]:
        pieces = self.pieces(split)
        batch = partial(collate, self._tokenizer().pad_id or 0, self.texts(split))
        return self.batches(split, pieces, [len(piece.ids) for piece in pieces], batch)


def collate(pad_id: int, texts: list[TaggedText], pieces: list[Piece]) -> Batch:
    """A batch of :class:`TaggingData`."""
    ids = pad_rows([piece.ids for piece in pieces], -1)
    labels = pad_rows([piece.labels for piece in pieces], IGNORE)
    counts = (labels != IGNORE).sum(1).tolist()
    spots = [(texts[p.text], p.first, p.first + n) for p, n in zip(pieces, counts, strict=True)]
    return {
        "input_ids": ids.masked_fill(ids < 0, pad_id),
        "mask": ids >= 0,
        "labels": labels,
        "sentence": [piece.text for piece in pieces],
        "word": [piece.first for piece in pieces],
        "words": [list(text.words[a:b]) for text, a, b in spots],
        "file": [text.file for text, _, _ in spots],
        "line": [list(text.lines[a:b]) for text, a, b in spots],
    }
