"""What data modules of texts and what is to be said of them share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch.utils.data import DataLoader

from family.inputs.encode import with_ends
from tasks.data.base import FamilyData
from tasks.data.batching import TokenBatches, token_loader
from tasks.data.kept import as_files
from tasks.data.split_files import find_file, shared_file
from tasks.data.splits import divide, nothing_held_out
from tasks.data.stored import Stored
from tasks.data.tokenizers import Tokenizer, make_tokenizer
from tasks.errors import at_least, between

Row = TypeVar("Row")


class TextData(FamilyData, Generic[Row]):
    """Texts with what is to be said of them, from a file for each split, from one of everything that is
    divided, or generated; one tokenizer; and batches of like length.

    A subclass reads its rows (:meth:`read`, :meth:`generated`), says which texts a tokenizer is trained on
    (:meth:`written`) and which rows are held out together (:meth:`kinds`), checks a split
    (:meth:`check`), and makes the batches (``loader``, through :meth:`batches`).

    Args:
        root: a folder with a file for each split, or one such file of everything, which is divided;
            None is the built-in world of shapes.
        train, val, test: the splits' names, or their files'; "val" is also found as valid, validation
            or dev.
        val_fraction, test_fraction: the shares of one file; "val" comes from "train" where only that
            has no file. The same text twice is held out together.
        split_seed: other numbers divide otherwise.
        tokenizer: "bpe", "unigram" or "char", trained on the training split alone; or one that exists, by
            the path of a ``tokenizer.json``, a folder, a run or a published source.
        vocab_size: for bpe and unigram.
        lowercase: see lower-cased text alone.
        max_tokens: of a row, the tokens that mark begin and end among them. A checkpoint brings its
            own, with which it is evaluated too.
        batch_size: rows of a batch.
        examples: training examples of the built-in world.
        seed: of what is generated, and of the order of batches.
        num_workers: processes that make batches.
        columns: what the columns are called, by our names: {text: sentence, label: class}. ``root`` may
            then be any table; a data set of ``datasets`` on disk and parquet files are read as they are.
    """

    decided: tuple[str, ...] = ("tokenizer", "vocab_size", "lowercase", "max_tokens")
    endings: tuple[str, ...]
    """Of its files."""
    kind_of_file: str = "table"
    """What files with these endings are called."""
    quotes = False
    """Whether fields of a ``.tsv`` may stand in quotes."""
    windows = False
    """Whether what is longer than ``max_tokens`` is read in windows, so that nothing is lost."""

    def __init__(
        self,
        root: str | None = None,
        train: str = "train",
        val: str = "val",
        test: str = "test",
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        tokenizer: str = "bpe",
        vocab_size: int = 8000,
        lowercase: bool = False,
        max_tokens: int = 128,
        batch_size: int = 32,
        examples: int = 8000,
        seed: int = 0,
        num_workers: int = 0,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size, examples=examples)
        at_least(0, num_workers=num_workers, seed=seed)
        at_least(3, max_tokens=max_tokens)
        between(0, 1, val_fraction=val_fraction, test_fraction=test_fraction)
        self.root = as_files(root, columns, quotes=self.quotes)
        self.splits = {"train": train, "val": val, "test": test}
        self.shares = {"val": val_fraction, "test": test_fraction}
        self.split_seed = split_seed
        self.kind, self.vocab_size, self.lowercase = tokenizer, vocab_size, lowercase
        self.max_tokens, self.batch_size, self.examples = max_tokens, batch_size, examples
        self.seed, self.num_workers = seed, num_workers
        self.tokenizer: Tokenizer | None = None
        self._rows: dict[str, list[Row]] = {}
        self._lines: dict[str, list[int]] = {}
        """The rows of each part of a file."""

    # --- What a subclass says ---

    def generated(self, count: int, split: str) -> list[Row]:
        """So many rows of a split of the built-in world."""
        raise NotImplementedError

    def read(self, file: Path) -> list[Row]:
        """All rows of a file, in their order.

        Raises:
            UserError: what is wrong with it, and where.
        """
        raise NotImplementedError

    def kinds(self, rows: list[Row]) -> tuple[Sequence[Hashable], Sequence[str]]:
        """By which a file is divided: of each row its class, each of which gives its share, and the name
        of its group, which stays together. Rows without classes have all the same.

        Raises:
            UserError: a file that is better refused before it is divided.
        """
        raise NotImplementedError

    def written(self) -> Iterable[str]:
        """The texts of the training split, as a tokenizer is to learn from them."""
        raise NotImplementedError

    def check(self, split: str) -> None:
        """Read all of a split, so that a mistake in the files ends a run before it began.

        Raises:
            UserError: the mistake.
        """
        self.rows(split)

    # --- What there is ---

    def rows(self, split: str) -> list[Row]:
        """The rows of "train", "val" or "test".

        Raises:
            UserError: see :meth:`read`; a split without a file, or without rows.
        """
        if split not in self._rows:
            if self.root is None:
                count = self.examples if split == "train" else max(100, self.examples // 10)
                self._rows[split] = self.generated(count, split)
            else:
                self._read(self.root, split)
        return self._rows[split]

    def _read(self, root: Path, split: str) -> None:
        """Read a split's own file, or divide the one that it is a part of."""
        file, parts = shared_file(root, self.splits, self.endings)
        if file is None or split not in parts:
            name = self.splits[split]
            file = find_file(root, split, name, self.endings, self.kind_of_file)
            self._rows[split] = self.read(file)
            return
        rows = self.read(file)
        shares = {name: self.shares[name] for name in parts if name != "train"}
        self._lines = found = divide(*self.kinds(rows), shares, self.split_seed)
        self._rows |= {name: [rows[i] for i in indices] for name, indices in found.items()}

    def places(self, split: str) -> Sequence[int]:
        """Which rows of their file those of a split are, from 0 on."""
        return self._lines.get(split) or range(len(self.rows(split)))

    # --- What Lightning and tasks ask for ---

    def _tokenizer(self) -> Tokenizer:
        """A checkpoint's, that of the first process, or made now; with its special tokens around a text."""
        if self.tokenizer is None:
            made = make_tokenizer(self.kind, self.written(), self.vocab_size, self.lowercase)
            self.tokenizer = with_ends(made)
        return self.tokenizer

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self._tokenizer()
        if stage in (None, "fit"):
            self.check("train")
        if stage in (None, "fit", "validate"):
            self.check("val")

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``vocab_size``, and what a subclass adds."""
        return {"vocab_size": self._tokenizer().vocab_size}

    def assets(self) -> dict[str, Any]:
        return {
            "tokenizers": {"text": self._tokenizer().to_json()},
            "max_tokens": self.max_tokens,
        }

    def use_assets(self, assets: dict[str, Any]) -> None:
        self.tokenizer = with_ends(Tokenizer.from_json(assets["tokenizers"]["text"]))
        self.max_tokens = assets.get("max_tokens") or self.max_tokens

    def said(self, row: Row) -> Sequence[str]:
        """The texts of a row, which together are what a model reads of it."""
        raise NotImplementedError

    def stored(self, split: str) -> Stored:
        rows = self.rows(split)
        return Stored(
            len(rows),
            lambda i: list(self.said(rows[i])),
            lambda i: [" ".join(self.said(rows[i]))],
            self._tokenizer().encode_batch,
            self.max_tokens,
            lost=not self.windows,
            label=lambda i: getattr(rows[i], "label", None),
        )

    def batches(
        self,
        split: str,
        examples: Sequence[Any],
        lengths: Sequence[int],
        collate: Callable[[list[Any]], Any],
    ) -> DataLoader[Any]:
        """Batches of like length, each made by ``collate``; in training in an order of their own each
        epoch.

        Args:
            lengths: of each example its tokens, of which a batch has ``batch_size * max_tokens`` at most.

        Raises:
            UserError: there are none.
        """
        if not examples:
            raise nothing_held_out(split)
        sampler = TokenBatches(
            lengths,
            self.batch_size * self.max_tokens,
            split == "train",
            self.order_seed,
            self.progress,
            max_rows=self.batch_size,
        )
        return token_loader(examples, sampler, collate, self.num_workers)
