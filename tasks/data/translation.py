"""Pairs of sentences for translation."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from family.inference.translation import most_new_tokens as most_new_tokens
from family.inputs.encode import encode_sources as sources
from family.inputs.encode import pad_rows
from family.losses.language_model import IGNORE
from tasks.data import shapes
from tasks.data.base import FamilyData
from tasks.data.batching import TokenBatches, token_loader
from tasks.data.splits import called, divide, nothing_held_out
from tasks.data.text_files import Pairs, has_split, read_file, read_parallel
from tasks.data.tokenizers import Kind, Tokenizer, train_tokenizer
from tasks.errors import UserError, at_least, between

log = logging.getLogger(__name__)
Batch = dict[str, Any]
Example = tuple[list[int], list[int], tuple[str, str], int]
"""Ids of a source, with what stands around it, and of a target; their texts; their line."""


class TranslationData(FamilyData):
    """Sentence pairs, tokenized, in batches of like length.

    A batch:

    - ``source (batch, tokens)`` int64: a sentence and ``<eos>``, padded at the right;
    - ``source_mask (batch, tokens)`` bool: True = a token;
    - ``target (batch, tokens)`` int64: what the decoder reads, ``<bos>`` and the translation;
    - ``labels (batch, tokens)`` int64: what it is to say, the translation and ``<eos>``, -100 at
      padding;
    - ``source_text``, ``target_text``: lists of the raw sentences; ``line``: of their lines from 0, in
      the files as they are stored.

    Args:
        root: a folder with, for each split, ``SPLIT.SOURCE`` and ``SPLIT.TARGET`` (one sentence a
            line), ``SPLIT.tsv``, ``SPLIT.po`` or ``SPLIT.mo``; or one such file (``all.tsv``) of
            everything, which is divided. None is the built-in world of shapes, French to English.
        source, target: the languages' names, which are the files' endings.
        train, val, test: the splits' names; "val" is also found as valid, validation or dev.
        val_fraction, test_fraction: the shares of one file; "val" comes from "train" where only that has
            no files. Pairs of the same source sentence are held out together.
        split_seed: other numbers divide otherwise.
        tokenizer: "bpe", "unigram" or "char", trained on the training split alone.
        vocab_size: of each tokenizer.
        shared_vocabulary: one tokenizer for both languages.
        quotes: fields of a ``.tsv`` may stand in quotes, as spreadsheets write them; without it a quote
            is a character like any other.
        lowercase: train on and produce lower-cased text.
        tokens_per_batch: rows times the longest row of a batch.
        max_tokens: training leaves longer sentences out.
        examples: sentences of the built-in world.
    """

    task = "Translation"
    decided = ("tokenizer", "vocab_size", "lowercase", "shared_vocabulary")

    def __init__(
        self,
        root: str | None = None,
        source: str = "fr",
        target: str = "en",
        train: str = "train",
        val: str = "val",
        test: str = "test",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        tokenizer: Kind = "bpe",
        vocab_size: int = 8000,
        shared_vocabulary: bool = True,
        lowercase: bool = False,
        quotes: bool = False,
        tokens_per_batch: int = 4096,
        max_tokens: int = 256,
        examples: int = 20_000,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        at_least(1, tokens_per_batch=tokens_per_batch, max_tokens=max_tokens, examples=examples)
        at_least(0, num_workers=num_workers, seed=seed)
        between(0, 1, val_fraction=val_fraction, test_fraction=test_fraction)
        self.root = None if root is None else Path(root)
        self.source, self.target, self.quotes = source, target, quotes
        self.splits = {"train": train, "val": val, "test": test}
        self.shares, self.split_seed = {"val": val_fraction, "test": test_fraction}, split_seed
        self._parts: dict[str, Pairs] = {}
        self._lines: dict[str, list[int]] = {}
        """The lines of each part of a file."""
        self.kind, self.vocab_size, self.shared = tokenizer, vocab_size, shared_vocabulary
        self.lowercase, self.tokens_per_batch, self.max_tokens = (
            lowercase,
            tokens_per_batch,
            max_tokens,
        )
        self.examples, self.seed, self.num_workers = examples, seed, num_workers
        self.source_tokenizer: Tokenizer | None = None
        self.target_tokenizer: Tokenizer | None = None
        self.generation: dict[str, Any] | None = None
        """What a checkpoint or a published model says of it."""
        self.start_id: int | None = None
        """What a published model's decoder starts from; None is ``<bos>``."""

    def pairs(self, split: str) -> Pairs:
        """The raw sentences of "train", "val" or "test".

        Raises:
            UserError: see :func:`~tasks.data.text_files.read_parallel`.
        """
        languages = self.source, self.target
        if self.root is None:
            if languages != ("fr", "en"):
                raise UserError("the built-in data translates fr to en; give data.root for others.")
            count = self.examples if split == "train" else max(100, self.examples // 40)
            return shapes.translation_pairs(count, self.seed, split)
        if split not in self._parts and split in self._shared():
            self._parts = self._divided()
        if split in self._parts:
            return self._parts[split]
        name, there = self._name(split)
        if split == "test" and not there:
            raise UserError(f"{self.root} has no files of the split data.test={name!r}.")
        return read_parallel(self.root, name, *languages, self.quotes)

    def _name(self, split: str) -> tuple[str, bool]:
        """What a split's files are called, and whether there are any."""
        assert self.root is not None
        there = partial(has_split, self.root, source=self.source, target=self.target)
        name = called(self.splits[split], there)
        return name, there(name)

    def _shared(self) -> list[str]:
        """The splits that are parts of one file."""
        assert self.root is not None
        if self.root.is_file():
            return [split for split, name in self.splits.items() if split == name]
        needed = self._name("train")[1] and not self._name("val")[1] and self.splits["val"] == "val"
        return ["train", "val"] if needed else []

    def _divided(self) -> dict[str, Pairs]:
        """Those splits, out of it."""
        assert self.root is not None
        languages = self.source, self.target
        if self.root.is_file():
            pairs = read_file(self.root, *languages, self.quotes)
        else:
            pairs = read_parallel(self.root, self._name("train")[0], *languages, self.quotes)
        shares = {split: self.shares[split] for split in self._shared() if split != "train"}
        parts = divide([0] * len(pairs), [pair[0] for pair in pairs], shares, self.split_seed)
        self._lines = parts
        return {split: [pairs[i] for i in indices] for split, indices in parts.items()}

    def assets(self) -> dict[str, Any]:
        source, target = self._tokenizers()
        ends = {"eos_token_id": target.eos_id, "pad_token_id": target.pad_id}
        return {
            "tokenizers": {"source": source.to_json(), "target": target.to_json()},
            "start_id": self.start_id,
            "generation": self.generation or ends,
        }

    def use_assets(self, assets: dict[str, Any]) -> None:
        given = {name: Tokenizer.from_json(text) for name, text in assets["tokenizers"].items()}
        self.source_tokenizer, self.target_tokenizer = given["source"], given["target"].target
        self.start_id = assets.get("start_id")
        self.generation = assets.get("generation")

    def _tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """Of source and target: a checkpoint's, those of the first process, or trained now."""
        if self.source_tokenizer is None or self.target_tokenizer is None:
            pairs = self.pairs("train")
            train = partial(
                train_tokenizer, self.kind, vocab_size=self.vocab_size, lowercase=self.lowercase
            )
            if self.shared:
                both = train(text for pair in pairs for text in pair)
                self.source_tokenizer = self.target_tokenizer = both
            else:
                self.source_tokenizer = train(p[0] for p in pairs)
                self.target_tokenizer = train(p[1] for p in pairs)
        return self.source_tokenizer, self.target_tokenizer

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self._tokenizers()
        if stage in (None, "fit"):
            # Read now, so that a mistake in the files ends the run before it began.
            self.pairs("val")

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model."""
        source, target = self._tokenizers()
        arguments: dict[str, Any] = {"vocab_size": source.vocab_size}
        if not self.shared:
            arguments["target_vocab_size"] = target.vocab_size
        return arguments

    def loader(self, split: str) -> DataLoader[Any]:
        tokenizers, pairs = self._tokenizers(), self.pairs(split)
        if not pairs:
            raise nothing_held_out(split)
        lines = self._lines.get(split) or range(len(pairs))
        source = sources(tokenizers[0], [pair[0] for pair in pairs])
        target = tokenizers[1].encode_batch([pair[1] for pair in pairs])
        examples = list(zip(source, target, pairs, lines, strict=True))
        if split == "train":
            kept = [example for example in examples if length(example) <= self.max_tokens]
            if not kept:
                raise UserError(
                    f"data.max_tokens={self.max_tokens} leaves none of {len(pairs)} training "
                    f"pairs: the shortest needs {min(map(length, examples))}."
                )
            if len(kept) < len(examples):
                log.warning(
                    "%d of %d training pairs are longer than max_tokens=%d and left out.",
                    len(examples) - len(kept),
                    len(examples),
                    self.max_tokens,
                )
            examples = kept
        sampler = TokenBatches(
            list(map(length, examples)),
            self.tokens_per_batch,
            split == "train",
            self.order_seed,
            self.progress,
        )
        batch = partial(collate, *tokenizers, start_id=self.start_id)
        return token_loader(examples, sampler, batch, self.num_workers)


def length(example: Example) -> int:
    """Tokens of the longer side, ends included."""
    return max(len(example[0]), len(example[1]) + 1)


def collate(
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    examples: list[Example],
    start_id: int | None = None,
) -> Batch:
    """A batch of :class:`TranslationData`; ``start_id`` stands in the place of ``<bos>``, if given."""
    pad, eos = target_tokenizer.pad_id, target_tokenizer.eos_id
    start = target_tokenizer.bos_id if start_id is None else start_id
    assert pad is not None and eos is not None and start is not None
    assert source_tokenizer.pad_id is not None
    source = pad_rows([e[0] for e in examples], -1)
    mask = source >= 0
    labels = pad_rows([[*e[1], eos] for e in examples], IGNORE)
    return {
        "source": source.masked_fill(~mask, source_tokenizer.pad_id),
        "source_mask": mask,
        "target": pad_rows([[start, *e[1]] for e in examples], pad),
        "labels": labels,
        "source_text": [e[2][0] for e in examples],
        "target_text": [e[2][1] for e in examples],
        "line": [e[3] for e in examples],
    }
