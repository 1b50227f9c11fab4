"""One long text, cut into windows of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from family.losses.language_model import IGNORE
from tasks.data import shapes
from tasks.data.base import FamilyData
from tasks.data.batching import LoaderProgress
from tasks.data.sampling import ExampleBatches, Pick, as_it_is, batch_loader
from tasks.data.splits import SPLITS, called
from tasks.data.text_files import read_text, text_start
from tasks.data.tokenizers import Kind, Tokenizer, pieces, train_tokenizer
from tasks.errors import UserError, at_least

CHUNK = 1 << 22
"""Characters held in memory at a time."""


class LanguageModelingData(FamilyData):
    """A text file or a folder of them as windows of ``context`` tokens.

    Training draws windows at random places; validation covers the whole split in consecutive
    windows, so that every token but the first is predicted exactly once.

    A batch:

    - ``input_ids (batch, context)`` int64;
    - ``labels (batch, context)`` int64: the token after each; -100 where there is none.

    Args:
        root: a text file, or a folder whose ``*.txt`` are read in the order of their names; where
            they are called ``train.txt``, ``val.txt`` (or valid, validation, dev) and ``test.txt``,
            they are the splits. None is the built-in world of shapes, as English captions.
        tokenizer: "char", "bpe" or "unigram", trained on the training split alone.
        vocab_size: for bpe and unigram.
        context: tokens of a window.
        batch_size: windows of a batch.
        val_fraction: the last part of each text is for validation.
        cache: folder for the tokens, memory-mapped while training.
    """

    task = "LanguageModeling"
    decided = ("tokenizer", "vocab_size")

    def __init__(
        self,
        root: str | None = None,
        tokenizer: Kind = "char",
        vocab_size: int = 8000,
        context: int = 256,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        cache: str = ".cache/tokens",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < val_fraction < 1:
            raise UserError(f"data.val_fraction must be between 0 and 1, not {val_fraction}.")
        at_least(1, context=context, batch_size=batch_size)
        at_least(0, seed=seed)
        if Path(cache).exists() and not Path(cache).is_dir():
            raise UserError(f"data.cache {cache} is a file: give a folder for the tokens.")
        self.root = None if root is None else Path(root)
        self.kind, self.vocab_size, self.context = tokenizer, vocab_size, context
        self.batch_size, self.val_fraction = batch_size, val_fraction
        self.cache, self.seed = Path(cache), seed
        self.tokenizer: Tokenizer | None = None
        self._files: dict[str, tuple[Path, int]] = {}
        """Of each split the file of its tokens, and the UTF-8 bytes of its text."""
        self._tokens: dict[str, np.ndarray] = {}

    def assets(self) -> dict[str, Any]:
        return {"tokenizers": {"text": self._tokenizer().to_json()}}

    def use_assets(self, assets: dict[str, Any]) -> None:
        self.tokenizer = Tokenizer.from_json(assets["tokenizers"]["text"])

    def texts(self, split: str) -> Iterator[str]:
        """The text of "train", "val" or "test", in pieces that fit in memory.

        Raises:
            UserError: a split that has no text.
        """
        if self.root is None:
            pairs = shapes.translation_pairs(8000 if split == "train" else 800, self.seed, split)
            yield "".join(f"{english}\n" for _, english in pairs)
            return
        named = self._named(split)
        # With documents that happen to be called dev.txt or testing.txt nothing is a split.
        plain = any((self.root / f"{name}.txt").exists() for name in SPLITS)
        if self.root.is_dir() and (plain or self._named("train").exists()):
            # All splits are files then: a split cut out of the others' would repeat their text.
            if not named.exists():
                have = ", ".join(p.name for p in sorted(self.root.glob("*.txt")))
                raise UserError(f"{self.root} has {have} but no {named.name} for data.{split}.")
            yield from read_pieces(named, 0, named.stat().st_size)
            return
        if split == "test":
            raise UserError(f"{self.root} has no test.txt: use family validate, or give one.")
        files = sorted(self.root.glob("*.txt")) if self.root.is_dir() else [self.root]
        if not files:
            raise UserError(f"data.root {self.root} is a folder without any .txt file.")
        for path in files:
            if not path.is_file():
                read_text(path)  # says what is wrong
            cut = split_offset(path, 1 - self.val_fraction)
            size = path.stat().st_size
            yield from read_pieces(path, *((0, cut) if split == "train" else (cut, size)))

    def _named(self, split: str) -> Path:
        """The text file of a split, by any of its usual names."""
        assert self.root is not None
        root = self.root
        return root / f"{called(split, lambda name: (root / f'{name}.txt').exists())}.txt"

    def _tokenizer(self) -> Tokenizer:
        """A checkpoint's, that of the first process, or trained now."""
        if self.tokenizer is None:
            lines = (line for text in self.texts("train") for line in pieces(text))
            self.tokenizer = train_tokenizer(
                self.kind, lines, self.vocab_size, specials=self.kind != "char"
            )
        return self.tokenizer

    def prepare_data(self) -> None:
        """Train the tokenizer, and write the files of tokens that the run will read."""
        super().prepare_data()
        with self.mistakes_wait():
            self._read(None if self.trainer is None else self.trainer.state.fn)

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self._tokenizer()
        self._files = self.from_first(self._files)
        self._read(stage)

    def _read(self, stage: str | None) -> None:
        """The tokens of a stage: a mistake in the texts ends the run before it began."""
        if stage == "test":
            self.tokens("test")
        elif stage != "predict":
            self.tokens("val")
        if stage in (None, "fit"):
            count = len(self.tokens("train"))
            if count <= self.context:
                raise UserError(
                    f"the training text has {count} tokens, too few for windows of "
                    f"data.context={self.context}."
                )

    def tokens(self, split: str) -> np.ndarray:
        """The tokens of a split, memory-mapped."""
        if split not in self._tokens:
            path, _ = self._file(split)
            tokens = np.memmap(path, dtype=self._dtype(), mode="r")
            if len(tokens) < 2:
                raise UserError(f"the {split} split of {self.root} has fewer than 2 tokens.")
            self._tokens[split] = tokens
        return self._tokens[split]

    def _dtype(self) -> type[np.unsignedinteger[Any]]:
        return np.uint16 if self._tokenizer().vocab_size <= 1 << 16 else np.uint32

    def _file(self, split: str) -> tuple[Path, int]:
        """The file of a split's tokens, written where there is none yet, and the bytes of the text."""
        known = self._files.get(split)
        if known is not None and known[0].exists():
            return known
        tokenizer = self._tokenizer()
        # Files of before the number may hold special tokens where a text spells them.
        digest = hashlib.sha256(b"2" + tokenizer.to_json().encode())
        size = 0
        for text in self.texts(split):
            digest.update(text.encode())
            size += len(text.encode())
        path = self.cache / f"{digest.hexdigest()[:32]}.bin"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # A name of its own: several runs, or nodes, may begin together.
            partial = path.with_suffix(f".{uuid4().hex[:8]}")
            try:
                with partial.open("wb") as file:
                    for text in self.texts(split):
                        ids = np.asarray(tokenizer.encode(text), dtype=self._dtype())
                        file.write(ids.tobytes())
            except ValueError as error:
                partial.unlink()
                raise UserError(f"the {split} split of {self.root}: {error}") from None
            partial.replace(path)
        self._files[split] = path, size
        return self._files[split]

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model."""
        return {"vocab_size": self._tokenizer().vocab_size}

    def bytes_per_token(self, split: str) -> float:
        """UTF-8 bytes of a token in "val" or "test", to compare losses across tokenizers."""
        return self._file(split)[1] / len(self.tokens(split))

    def loader(self, split: str) -> DataLoader[Any]:
        tokens = self.tokens(split)
        if split != "train":
            blocks = Blocks(tokens, self.context)
            batches = ExampleBatches(len(blocks), self.batch_size, False, progress=self.progress)
            return batch_loader(blocks, batches, num_workers=0)
        per_epoch = max(1, len(tokens) // (self.context * self.batch_size))
        last = len(tokens) - self.context
        sampler = RandomWindows(last, self.batch_size, per_epoch, self.order_seed, self.progress)
        windows = Windows(tokens, self.context)
        return DataLoader(windows, batch_sampler=sampler, collate_fn=as_it_is)

    def predict_dataloader(self) -> DataLoader[Any]:
        raise UserError("a language model continues prompts: use family generate.")


class Windows(Dataset[Any]):
    """The window that begins at an offset; a whole batch is fetched at once."""

    def __init__(self, tokens: np.ndarray, context: int) -> None:
        self.tokens, self.span = tokens, np.arange(context + 1)

    def __getitems__(self, offsets: list[int]) -> dict[str, Tensor]:
        rows = torch.from_numpy(self.tokens[np.asarray(offsets)[:, None] + self.span].astype("i8"))
        return {"input_ids": rows[:, :-1], "labels": rows[:, 1:]}


class Blocks(Dataset[Any]):
    """Consecutive windows; the last one is filled up with tokens that do not count."""

    def __init__(self, tokens: np.ndarray, context: int) -> None:
        self.tokens, self.context = tokens, context

    def __len__(self) -> int:
        return -(-(len(self.tokens) - 1) // self.context)

    def __getitems__(self, picks: list[Pick]) -> dict[str, Tensor]:
        input_ids = torch.zeros(len(picks), self.context, dtype=torch.long)
        labels = torch.full_like(input_ids, IGNORE)
        for row, pick in enumerate(picks):
            start = pick.index * self.context
            part = torch.from_numpy(self.tokens[start : start + self.context + 1].astype("i8"))
            input_ids[row, : len(part) - 1] = part[:-1]
            labels[row, : len(part) - 1] = part[1:]
        return {"input_ids": input_ids, "labels": labels}


class RandomWindows(Sampler[list[int]]):
    """Batches of random offsets that depend on ``(seed, epoch)`` alone; processes share them.

    An epoch's windows start at every ``last / count``-th token or so, shifted at random and in random
    order: all of the text is seen about equally often.
    """

    def __init__(
        self, last: int, batch_size: int, batches: int, seed: int, progress: LoaderProgress
    ) -> None:
        self.last, self.batch_size, self.count = last, batch_size, batches
        self.seed, self.progress = seed, progress

    def __iter__(self) -> Iterator[list[int]]:
        rank, world = self.progress.process
        random = np.random.default_rng([self.seed, self.progress.epoch, 0])
        # Of a text too short for all processes, windows overlap more.
        count = max(self.count, world)
        slots = count * self.batch_size
        offsets = (random.permutation(slots) + random.random()) * (self.last / slots)
        batches = offsets.astype(int).reshape(count, self.batch_size)[rank::world][: len(self)]
        return iter(batches[len(self) - self.left() :].tolist())

    @property
    def size(self) -> int:
        return self.batch_size

    def left(self) -> int:
        done = self.progress.done(self.batch_size)
        return max(0, len(self) - done // (self.batch_size * self.progress.process[1]))

    def __len__(self) -> int:
        return max(1, self.count // self.progress.process[1])


def split_offset(path: Path, fraction: float) -> int:
    """The byte at which ``fraction`` of a file's characters end."""
    characters = sum(len(text) for text in read_pieces(path, 0, path.stat().st_size))
    left, offset = int(characters * fraction), text_start(path)
    for text in read_pieces(path, 0, path.stat().st_size):
        if left <= len(text):
            return offset + len(text[:left].encode())
        left -= len(text)
        offset += len(text.encode())
    return offset


def read_pieces(path: Path, start: int, stop: int) -> Iterator[str]:
    """The UTF-8 text between two bytes, some millions of characters at a time, without a byte-order mark.

    Raises:
        UserError: an empty file, or bytes that are not UTF-8 (with their offset).
    """
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty.")
    start = max(start, text_start(path))
    with path.open("rb") as file:
        file.seek(start)
        left = b""
        while start < stop:
            content = left + file.read(min(CHUNK, stop - start))
            start += len(content) - len(left)
            try:
                text, left = content.decode("utf-8"), b""
            except UnicodeDecodeError as error:
                whole = error.end - error.start <= 3 and len(content) - error.start < 4
                if start >= stop or not whole:
                    offset = start - len(content) + error.start
                    message = f"{path} is not UTF-8: see the byte at offset {offset}."
                    raise UserError(message) from None
                # A character cut by the end of the chunk: it goes on with the next.
                text, left = content[: error.start].decode("utf-8"), content[error.start :]
            yield text
