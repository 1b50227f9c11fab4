"""The files of a data set in two languages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tasks.data.splits import called, divide
from tasks.data.text_files import Pairs, has_split, read_file, read_parallel
from tasks.errors import UserError


class PairTexts:
    """Sentences and their translations, and which part of them each split is.

    Args:
        root: a folder with files for each split, see :func:`~tasks.data.text_files.read_parallel`; or one
            file of everything, which is divided; so is "train" where "val" has no files.
        source, target: the languages' names.
        splits: of "train", "val" and "test" what they are called.
        shares, seed: see :func:`~tasks.data.splits.divide`; pairs of the same source are of one group.
        quotes: fields of a ``.tsv`` may stand in quotes.
    """

    def __init__(
        self,
        root: Path,
        source: str,
        target: str,
        splits: Mapping[str, str],
        shares: Mapping[str, float],
        seed: int = 0,
        quotes: bool = False,
    ) -> None:
        self.root, self.source, self.target = root, source, target
        self.splits, self.shares, self.seed, self.quotes = splits, shares, seed, quotes
        self.lines: dict[str, list[int]] = {}
        """The lines of each part of a file, from 0."""
        self._parts: dict[str, Pairs] = {}

    def pairs(self, split: str) -> Pairs:
        """The sentences of "train", "val" or "test".

        Raises:
            UserError: see :func:`~tasks.data.text_files.read_parallel`; no files of "test".
        """
        if split not in self._parts and split in self._shared():
            self._parts = self._divided()
        if split in self._parts:
            return self._parts[split]
        name, there = self._name(split)
        if split == "test" and not there:
            raise UserError(f"{self.root} has no files of the split data.test={name!r}.")
        return read_parallel(self.root, name, self.source, self.target, self.quotes)

    def _name(self, split: str) -> tuple[str, bool]:
        """What a split's files are called, and whether there are any."""
        there = partial(has_split, self.root, source=self.source, target=self.target)
        name = called(self.splits[split], there)
        return name, there(name)

    def _shared(self) -> list[str]:
        """The splits that are parts of one file."""
        if self.root.is_file():
            return [split for split, name in self.splits.items() if split == name]
        needed = self._name("train")[1] and not self._name("val")[1] and self.splits["val"] == "val"
        return ["train", "val"] if needed else []

    def _divided(self) -> dict[str, Pairs]:
        """Those splits, out of it."""
        languages = self.source, self.target
        if self.root.is_file():
            pairs = read_file(self.root, *languages, self.quotes)
        else:
            pairs = read_parallel(self.root, self._name("train")[0], *languages, self.quotes)
        shares = {split: self.shares[split] for split in self._shared() if split != "train"}
        self.lines = divide([0] * len(pairs), [pair[0] for pair in pairs], shares, self.seed)
        return {split: [pairs[i] for i in indices] for split, indices in self.lines.items()}
