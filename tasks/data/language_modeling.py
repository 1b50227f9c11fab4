"""Long texts, cut into windows of tokens."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch.utils.data import DataLoader

from family.files import whole
from tasks.data import shapes
from tasks.data.base import FamilyData
from tasks.data.documents import END, held_out, read_pieces, split_at, split_offset
from tasks.data.kept import as_files
from tasks.data.sampling import ExampleBatches, as_it_is, batch_loader
from tasks.data.splits import SPLITS, called
from tasks.data.stored import Stored
from tasks.data.text_files import refuse_no_file
from tasks.data.tokenizers import TRAINED, Tokenizer, make_tokenizer, pieces
from tasks.data.windows import Blocks, RandomWindows, Windows
from tasks.errors import UserError, at_least

LOG = logging.getLogger(__name__)
LINE = 64
"""Characters of a line that is looked for in other splits."""


class LanguageModelingData(FamilyData):
    """A text file or a folder of them as windows of ``context`` tokens.

    Training draws windows at random places; validation covers the whole split in consecutive
    windows, so that every token but the first is predicted exactly once.

    A batch:

    - ``input_ids (batch, context)`` int64;
    - ``labels (batch, context)`` int64: the token after each; -100 where there is none;
    - ``documents (batch, context)`` int64, with ``isolate``: a number for each document of a row.

    Each file of a folder is a document; one file is one, unless ``separator`` divides it. Where there are
    several, the tokenizer's end-of-text token follows each, so that a model learns to stop. Validation
    then holds out whole documents, evenly among them, or, where they are too few for that, the last part
    of each. A checkpoint of before, which saw a folder as one text, goes on so. The end-of-text tokens count in the loss as all others do; of bits per byte they are part of
    the bits, while the bytes are those of the texts alone.

    Args:
        root: a text file, or a folder whose ``*.txt`` are read in the order of their names; where
            they are called ``train.txt``, ``val.txt`` (or valid, validation, dev) and ``test.txt``,
            they are the splits. None is the built-in world of shapes, as English captions.
        tokenizer: "char", "bpe", "unigram" or "word", trained on the training split alone; or one that exists, by
            the path of a ``tokenizer.json``, a folder, a run or a published source.
        vocab_size: for all but char.
        columns: see :class:`~tasks.data.text_data.TextData`; {text: article}.
        context: tokens of a window.
        batch_size: windows of a batch.
        val_fraction: the last part of each text, or so many of the documents, are for validation.
        cache: folder for the tokens, memory-mapped while training.
        separator: what stands between two documents of a file, as ``<|endoftext|>``; it is no text.
        isolate: no token sees another document, positions begin anew in each, and the first token of
            one is not predicted from those before; for models that take ``documents``.
    """

    task = "LanguageModeling"
    decided = ("tokenizer", "vocab_size")
    layout = b"2"  # files of before the number may hold special tokens where a text spells them
    """What else than the texts' own tokens the files of tokens hold; it is in their names."""

    def __init__(
        self,
        root: str | None = None,
        tokenizer: str = "char",
        vocab_size: int = 8000,
        context: int = 256,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        cache: str = ".cache/tokens",
        seed: int = 0,
        separator: str | None = None,
        isolate: bool = False,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        if not 0 < val_fraction < 1:
            raise UserError(f"data.val_fraction must be between 0 and 1, not {val_fraction}.")
        at_least(1, context=context, batch_size=batch_size)
        at_least(0, seed=seed)
        if Path(cache).exists() and not Path(cache).is_dir():
            raise UserError(f"data.cache {cache} is a file: give a folder for the tokens.")
        if separator == "":
            raise UserError("data.separator is empty: give what stands between documents, or none.")
        self.root = as_files(root, columns, "txt")
        self.separator, self.isolate = separator, isolate
        self.kind, self.vocab_size, self.context = tokenizer, vocab_size, context
        self.batch_size, self.val_fraction = batch_size, val_fraction
        self.cache, self.seed = Path(cache), seed
        self.tokenizer: Tokenizer | None = None
        self.generation: dict[str, Any] | None = None
        """What a checkpoint or a published model says of it."""
        self.joined = False
        """Whether a checkpoint was trained when the files of a folder were one text, of which the last
        part of each file validates: to hold out others would validate on what was trained on."""
        self._files: dict[str, tuple[Path, int]] = {}
        """Of each split the file of its tokens, and the UTF-8 bytes of its text."""
        self._tokens: dict[str, np.ndarray] = {}

    def assets(self) -> dict[str, Any]:
        tokenizer = self._tokenizer()
        stops = set() if tokenizer.eos_id is None else {tokenizer.eos_id}
        generation = generation_fields(self.generation, stops, self.context)
        texts = {"text": tokenizer.to_json()}
        return {"tokenizers": texts, "generation": generation, "documents": not self.joined}

    def use_assets(self, assets: dict[str, Any]) -> None:
        self.tokenizer = Tokenizer.from_json(assets["tokenizers"]["text"])
        self.generation = assets.get("generation")
        # A checkpoint of before says nothing of an end; a published model has tokenizers of other names.
        ours = assets["tokenizers"].keys() == {"text"}
        ends = "eos_token_id" in (self.generation or {})
        self.joined = not assets.get("documents", ends or not ours)

    def texts(self, split: str) -> Iterator[str]:
        """The text of "train", "val" or "test", in pieces that fit in memory.

        Where there are several documents, an empty piece stands behind each.

        Raises:
            UserError: a split that has no text, or a file without the separator.
        """
        return (
            self._documents(split) if self.several() else self._parts(split, self._files_of(split))
        )

    def several(self) -> bool:
        """Whether there is more than one document."""
        return self.separator is not None or (self._many_files() and not self.joined)

    def _many_files(self) -> bool:
        folder = self.root is not None and self.root.is_dir() and not self._splits_are_files()
        return folder and len(self._files_of("train")) > 1

    def _splits_are_files(self) -> bool:
        """Whether the files of a folder are called as the splits."""
        if self.root is None or not self.root.is_dir():
            return False
        # With documents that happen to be called dev.txt or testing.txt nothing is a split.
        plain = any((self.root / f"{name}.txt").exists() for name in SPLITS)
        return plain or self._named("train").exists()

    def _files_of(self, split: str) -> list[Path]:
        """The files that hold a split, alone or with another."""
        if self.root is None:
            return []
        if self._splits_are_files():
            # All splits are files then: a split cut out of the others' would repeat their text.
            named = self._named(split)
            if not named.exists():
                have = ", ".join(p.name for p in sorted(self.root.glob("*.txt")))
                raise UserError(f"{self.root} has {have} but no {named.name} for data.{split}.")
            refuse_no_file(named)
            return [named]
        if split == "test":
            raise UserError(f"{self.root} has no test.txt: use family validate, or give one.")
        files = sorted(self.root.glob("*.txt")) if self.root.is_dir() else [self.root]
        if not files:
            raise UserError(f"data.root {self.root} is a folder without any .txt file.")
        for path in files:
            refuse_no_file(path)
        return files

    def _parts(self, split: str, files: list[Path], whole: bool = False) -> Iterator[str]:
        """The pieces of files that belong to a split, or all of them."""
        if self.root is None:
            pairs = shapes.translation_pairs(8000 if split == "train" else 800, self.seed, split)
            yield "".join(f"{english}\n" for _, english in pairs)
        for path in files:
            start, stop = 0, path.stat().st_size
            if not whole and not self._splits_are_files():
                cut = split_offset(path, 1 - self.val_fraction)
                start, stop = (0, cut) if split == "train" else (cut, stop)
            yield from filter(None, read_pieces(path, start, stop))

    def _documents(self, split: str) -> Iterator[str]:
        """The documents of a split."""
        if self._splits_are_files() or self.root is None:
            return self._divided(split, whole=True)
        count = sum(text == END for text in self._divided(split, whole=True))
        if count * self.val_fraction < 1:
            return self._divided(split)
        return held_out(self._divided(split, whole=True), self.val_fraction, split == "train")

    def _divided(self, split: str, whole: bool = False) -> Iterator[str]:
        files = self._files_of(split)
        for some in [[path] for path in files] or [[]]:
            texts = self._parts(split, some, whole)
            if self.separator is None:
                yield from texts
                yield END
            else:
                yield from split_at(texts, self.separator)

    def _named(self, split: str) -> Path:
        """The text file of a split, by any of its usual names."""
        assert self.root is not None
        root = self.root
        return root / f"{called(split, lambda name: (root / f'{name}.txt').exists())}.txt"

    def _tokenizer(self) -> Tokenizer:
        """A checkpoint's, that of the first process, or trained now."""
        if self.tokenizer is None:
            lines = (line for text in self.texts("train") for line in pieces(text))
            self.tokenizer = make_tokenizer(
                self.kind, lines, self.vocab_size, specials=self._specials()
            )
        return self.tokenizer

    def _specials(self) -> bool | tuple[str, ...]:
        """Those of a tokenizer trained here: of characters, the end of text alone, where texts end."""
        return (TRAINED["eos"],) * self.several() if self.kind == "char" else True

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
        if self.separator is not None and stage in (None, "fit"):
            parts = self._parts("train", self._files_of("train"), whole=True)
            if not any(self.separator in text for text in parts):
                raise UserError(
                    f"data.separator={self.separator!r} is nowhere in {self.root}, so it would divide "
                    "nothing."
                )
        if self.isolate and (not self.several() or self._tokenizer().eos_id is None):
            raise UserError(
                "data.isolate=true needs several documents (a folder of files, or data.separator) and a "
                "tokenizer with an end-of-text token."
            )
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
        end = self._behind(tokenizer)
        if self.joined and self.separator is None and self._many_files():
            LOG.warning(
                "the checkpoint is of before files were documents: those of %s follow each other as one "
                "text, and the last part of each is for validation, as in its training.",
                self.root,
            )
        elif not end and self.several():
            LOG.warning(
                "the tokenizer has no end-of-text token, so the documents of %s follow each "
                "other without one.",
                self.root,
            )
        digest = hashlib.sha256(self.layout + tokenizer.to_json().encode())
        size = 0
        for text in self.texts(split):
            digest.update(text.encode() or b"\xff")  # which is in no UTF-8
            size += len(text.encode())
        path = self.cache / f"{digest.hexdigest()[:32]}.bin"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # A name of its own: several runs, or nodes, may begin together.
            partial = path.with_suffix(f".{uuid4().hex[:8]}")
            try:
                with whole(partial) as new, new.open("wb") as file:
                    for text in self.texts(split):
                        ids = end if text == END else tokenizer.encode(text)
                        file.write(np.asarray(ids, dtype=self._dtype()).tobytes())
            except ValueError as error:
                raise UserError(f"the {split} split of {self.root}: {error}") from None
            partial.replace(path)
        self._files[split] = path, size
        return self._files[split]

    def _behind(self, tokenizer: Tokenizer) -> list[int]:
        """What stands behind each document."""
        return [] if tokenizer.eos_id is None else [tokenizer.eos_id]

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model."""
        return {"vocab_size": self._tokenizer().vocab_size}

    def bytes_per_token(self, split: str) -> float:
        """UTF-8 bytes of a token in "val" or "test", to compare losses across tokenizers."""
        return self._file(split)[1] / len(self.tokens(split))

    def stored(self, split: str) -> Stored:
        """Its lines, so far as they are long enough not to be the same by chance."""
        lines = [
            line for text in self.texts(split) for line in text.split("\n") if len(line) >= LINE
        ]
        return Stored(len(lines), lines.__getitem__)

    def loader(self, split: str) -> DataLoader[Any]:
        tokens = self.tokens(split)
        if split != "train":
            blocks = Blocks(tokens, self.context, self._end())
            batches = ExampleBatches(len(blocks), self.batch_size, False, progress=self.progress)
            return batch_loader(blocks, batches, num_workers=0)
        per_epoch = max(1, len(tokens) // (self.context * self.batch_size))
        last = len(tokens) - self.context
        sampler = RandomWindows(last, self.batch_size, per_epoch, self.order_seed, self.progress)
        windows = Windows(tokens, self.context, self._end())
        generator = torch.Generator()  # else it draws from training's random numbers
        return DataLoader(windows, batch_sampler=sampler, collate_fn=as_it_is, generator=generator)

    def _end(self) -> int | None:
        """What ends a document, where none sees another."""
        return self._tokenizer().eos_id if self.isolate else None

    def predict_dataloader(self) -> DataLoader[Any]:
        raise UserError("a language model continues prompts: use family generate.")


def generation_fields(
    own: dict[str, Any] | None, stops: Collection[int], context: int
) -> dict[str, Any]:
    """How a model generates, as a checkpoint says it: where texts end, and how long those were that it was
    trained on.

    Args:
        own: what a checkpoint or a published model says already; the latter keeps its own length.
        stops: the tokens that end a text.
        context: tokens of a row.
    """
    if own is None:
        ends = sorted(stops)
        said = {"eos_token_id": ends[0] if len(ends) == 1 else ends} if ends else {}
        return {**said, "trained_tokens": context}
    if "trained_tokens" in own:
        return {**own, "trained_tokens": max(own["trained_tokens"], context)}
    return own
