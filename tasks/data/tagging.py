"""Texts whose words have tags."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from family.inference.tagging import row_of
from family.inputs.encode import pad_rows, with_ends
from family.inputs.words import encode_words, ends_of, windows
from family.losses.language_model import IGNORE
from tasks.data.base import FamilyData
from tasks.data.batching import TokenBatches, token_loader
from tasks.data.splits import divide, nothing_held_out
from tasks.data.tagged_texts import (
    Column,
    TaggedText,
    check_spans,
    find_file,
    read_tagged,
    shared_file,
    tag_names,
    tagged_shapes,
)
from tasks.data.tokenizers import Tokenizer, make_tokenizer
from tasks.errors import UserError, at_least, between, closest

Batch = dict[str, Any]


class Piece(NamedTuple):
    """A window of a text: ids, a label for each (``IGNORE`` but where a word of its own begins), the text's
    number, and the first of those words."""

    ids: list[int]
    labels: list[int]
    text: int
    first: int


class TaggingData(FamilyData):
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
        train, val, test: the splits' names, or their files' ("eng.testa"); "val" is also found as valid,
            validation or dev.
        word_column, tag_column: of CoNLL the columns by their numbers (from 0 on, -1 is the last), of
            JSON lines the fields by their names; without them the first and the last, or the usual
            names.
        spans: the tags mark spans, by IOB1, IOB2 or IOBES; without it they are taken as they are, such
            as parts of speech.
        val_fraction, test_fraction: the shares of one file; "val" comes from "train" where only that
            has no file. The same text twice is held out together.
        split_seed: other numbers divide otherwise.
        tokenizer: "bpe", "unigram" or "char", trained on the training split alone; or one that exists, by
            the path of a ``tokenizer.json``, a folder, a run or a published source.
        vocab_size: for bpe and unigram.
        lowercase: see lower-cased words alone.
        max_tokens: of a window, the tokens that mark begin and end among them. A checkpoint brings
            its own, with which it is evaluated too.
        stride: tokens from the begin of a window to that of the next; None is half a window.
        batch_size: texts, or windows, of a batch.
        examples: training sentences of the built-in world.
    """

    task = "Tagging"
    decided = ("tokenizer", "vocab_size", "lowercase", "max_tokens")

    def __init__(
        self,
        root: str | None = None,
        train: str = "train",
        val: str = "val",
        test: str = "test",
        word_column: Column = None,
        tag_column: Column = None,
        spans: bool = True,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        lowercase: bool = False,
        max_tokens: int = 128,
        stride: int | None = None,
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
        if stride is not None:
            between(1, max_tokens, stride=stride)
        self.root = None if root is None else Path(root)
        self.splits = {"train": train, "val": val, "test": test}
        self.columns, self.spans, self.split_seed = (word_column, tag_column), spans, split_seed
        self.shares = {"val": val_fraction, "test": test_fraction}
        self.kind, self.vocab_size, self.lowercase = tokenizer, vocab_size, lowercase
        self.max_tokens, self.stride = max_tokens, stride
        self.batch_size, self.examples = batch_size, examples
        self.seed, self.num_workers = seed, num_workers
        self.tokenizer: Tokenizer | None = None
        self.given: list[str] | None = None
        self._texts: dict[str, list[TaggedText]] = {}

    # --- What there is ---

    def texts(self, split: str) -> list[TaggedText]:
        """The texts of "train", "val" or "test" with their tags.

        Raises:
            UserError: see :func:`~tasks.data.tagged_texts.read_tagged`; tags that mark no spans.
        """
        if split not in self._texts:
            if self.root is None:
                count = self.examples if split == "train" else max(100, self.examples // 10)
                self._texts[split] = tagged_shapes(count, self.seed, split)
            else:
                self._read(self.root, split)
        return self._texts[split]

    def _read(self, root: Path, split: str) -> None:
        """Read a split's own file, or divide the one that it is a part of."""
        file, parts = shared_file(root, self.splits)
        whole = file is None or split not in parts
        if file is None or whole:
            file = find_file(root, split, self.splits[split])
        texts = read_tagged(file, *self.columns)
        if self.spans:
            check_spans(texts)
        if whole:
            self._texts[split] = texts
            return
        tag_names(texts)  # one tag alone is a clearer mistake than a split without texts
        shares = {name: self.shares[name] for name in parts if name != "train"}
        groups = [" ".join(text.words) for text in texts]
        found = divide([0] * len(texts), groups, shares, self.split_seed)
        self._texts |= {name: [texts[i] for i in indices] for name, indices in found.items()}

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
                    known = f"{', '.join(self.classes[:5])}{' ...' if len(ids) > 5 else ''}"
                    raise UserError(
                        f"{text.where(i)} has the tag {tag!r}, which is none of the {len(ids)} tags of "
                        f"the training split ({known}).{closest(tag, ids)}"
                    )
        return [[ids[tag] for tag in text.tags] for text in self.texts(split)]

    # --- What Lightning and tasks ask for ---

    def _tokenizer(self) -> Tokenizer:
        """A checkpoint's, that of the first process, or trained now."""
        if self.tokenizer is None:
            # Bytes know the space before a word, which the first one gets too when it is cut.
            space = " " if self.kind == "bpe" else ""
            texts = (space + " ".join(text.words) for text in self.texts("train"))
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
        """The training words of each tag."""
        labels = [label for row in self.labels("train") for label in row]
        return torch.bincount(torch.tensor(labels), minlength=len(self.classes)).tolist()

    def use_assets(self, assets: dict[str, Any]) -> None:
        """As of a checkpoint; without ``labels`` the tags are those of the training split."""
        self.tokenizer = Tokenizer.from_json(assets["tokenizers"]["text"])
        self.given = assets.get("labels")
        self.max_tokens = assets.get("max_tokens") or self.max_tokens

    def pieces(self, split: str) -> list[Piece]:
        """The windows of all texts; most texts are one."""
        tokenizer = with_ends(self._tokenizer())
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
        if not pieces:
            raise nothing_held_out(split)
        sampler = TokenBatches(
            [len(piece.ids) for piece in pieces],
            self.batch_size * self.max_tokens,
            split == "train",
            self.order_seed,
            self.progress,
            max_rows=self.batch_size,
        )
        batch = partial(collate, self._tokenizer().pad_id or 0, self.texts(split))
        return token_loader(pieces, sampler, batch, self.num_workers)


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
