"""Sentences that say the same in several languages, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tasks.data.captions import TABLES, choose, table_rows
from tasks.data.split_files import own_file
from tasks.data.splits import called, divide, joined
from tasks.data.text_files import check_aligned, read_lines
from tasks.errors import UserError, closest


class Parallel(NamedTuple):
    """Lines that say the same in some languages.

    Args:
        columns: language -> sentences, as many in each.
        lines: where they stand in their files, from 0.
        keys: of each line, what it has in common with others of its group; None is nothing.
    """

    columns: dict[str, list[str]]
    lines: Sequence[int]
    keys: Sequence[str] | None = None

    def texts(self, languages: Sequence[str]) -> Iterator[str]:
        """All sentences of some languages."""
        for language in languages:
            yield from self.columns.get(language, ())

    def part(self, rows: Sequence[int]) -> Parallel:
        """Some of the lines."""
        columns = {name: [texts[i] for i in rows] for name, texts in self.columns.items()}
        keys = None if self.keys is None else [self.keys[i] for i in rows]
        return Parallel(columns, [self.lines[i] for i in rows], keys)


class ParallelTexts:
    """The files of a data set in several languages, and which part of them each split is.

    A split is ``SPLIT.en``, ``SPLIT.de``, ``SPLIT.fr`` ..., line by line; beside them, or in their place,
    ``SPLIT.en-de.en`` with ``SPLIT.en-de.de`` of two languages alone; or ``SPLIT.tsv``, ``.csv`` or
    ``.jsonl`` with a column for each language. One table (or ``all.en`` with its like) of everything is
    divided by its lines; so is "train" where "val" has no files. Lines that share a sentence in any
    language are held out together.

    Args:
        root: such a folder, or one such file; or the folder of one table.
        languages: columns, and endings of files.
        splits: of "train", "val" and "test" what they are called.
        shares, seed: see :func:`~tasks.data.splits.divide`.
        quotes: fields of a ``.tsv`` may stand in quotes.
        column: of a table; lines that are equal there are held out together too.
        ignore: what is first taken out of that column.
    """

    def __init__(
        self,
        root: Path,
        languages: Sequence[str],
        splits: Mapping[str, str],
        shares: Mapping[str, float],
        seed: int = 0,
        quotes: bool = False,
        column: str | None = None,
        ignore: re.Pattern[str] | None = None,
    ) -> None:
        self.root, self.languages, self.splits = root, languages, splits
        self.shares, self.seed, self.quotes = shares, seed, quotes
        self.column, self.ignore = column, ignore
        self._found: dict[str, list[Parallel]] = {}

    def blocks(self, split: str) -> list[Parallel]:
        """What a split has; of two languages alone comes first.

        Raises:
            UserError: no files, files that are not UTF-8, empty or of unequal numbers of lines, a line
                without a sentence; in training, a language that is nowhere.
        """
        if split not in self._found:
            whole, parts = self._shared()
            if split in parts:
                blocks = self._checked("train", whole, self._read(whole))
                self._found |= self._divided(blocks, parts)
            else:
                name = self._called(split)
                self._found[split] = self._checked(split, name, self._read(name))
        return self._found[split]

    # --- Which files ---

    def _called(self, split: str) -> str:
        """What a split's files are called."""
        return called(self.splits[split], partial(has_files, self.root, self.languages))

    def _shared(self) -> tuple[str, list[str]]:
        """The file, or the split, that several splits are parts of, and which those are."""
        whole = [split for split, name in self.splits.items() if split == name]
        if self.root.is_file():
            return self.root.name, whole
        if not self.root.is_dir():
            raise UserError(f"data.root {self.root} does not exist.")
        there = {s: has_files(self.root, self.languages, self._called(s)) for s in self.splits}
        if there["train"] and not there["val"] and "val" in whole:
            return self._called("train"), ["train", "val"]
        tables = [path for path in self.root.iterdir() if path.suffix in TABLES]
        if not any(there.values()) and len(tables) == 1:
            return tables[0].name, whole
        return "", []

    def _read(self, name: str) -> list[Parallel]:
        """The blocks of a split, or of one file of the folder."""
        folder = self.root if self.root.is_dir() else self.root.parent
        file = folder / name
        table = file if file.suffix in TABLES and file.is_file() else own_file(folder, name, TABLES)
        if table is not None:
            return [self._table(table)]
        if self.root.is_file():
            if file.suffix.removeprefix(".") not in self.languages:
                endings = ", ".join(f".{language}" for language in self.languages)
                raise UserError(
                    f"data.root {file} is of no kind that holds several languages: {', '.join(TABLES)}, "
                    f"or {endings} beside each other."
                )
            name = file.stem
        if self.column is not None:
            raise UserError(
                f"data.split_column={self.column!r} is of a table, but {folder} has files line by line."
            )
        pairs = [pair for a, b in combinations(self.languages, 2) for pair in ((a, b), (b, a))]
        named = {p: [folder / f"{name}.{p[0]}-{p[1]}.{one}" for one in p] for p in pairs}
        blocks = [aligned(p, files) for p, files in named.items() if any(map(Path.exists, files))]
        own = [one for one in self.languages if (folder / f"{name}.{one}").exists()]
        if own:
            blocks.append(aligned(own, [folder / f"{name}.{one}" for one in own]))
        return blocks

    def _table(self, file: Path) -> Parallel:
        rows = list(table_rows(file, self.quotes))
        if not rows:
            raise UserError(f"{file} has no line below the names of the columns.")
        names = list(rows[0][1])
        keys = None
        if self.column is not None:
            choose(file, names, self.column, (), "split_column")
            values = [row.get(self.column, "") for _, row in rows]
            keys = [v if self.ignore is None else self.ignore.sub("", v) for v in values]
        columns: dict[str, list[str]] = {one: [] for one in self.languages if one in names}
        for number, row in rows:
            for language, texts in columns.items():
                texts.append(row.get(language, "").strip())
                if not texts[-1]:
                    raise UserError(f"{file} line {number} has an empty {language}.")
        return Parallel(columns, range(len(rows)), keys)

    def _checked(self, split: str, name: str, blocks: list[Parallel]) -> list[Parallel]:
        """The blocks, if there are two languages at least; in training, if each is somewhere."""
        found = [one for one in self.languages if any(one in block.columns for block in blocks)]
        missing = [one for one in self.languages if one not in found]
        if len(found) < 2 or (missing and split == "train"):
            lacks = missing[0] if found else None
            folder = self.root if self.root.is_dir() else self.root.parent
            if lacks is None:
                said = f"{self.root} has no files of the split data.{split}={self.splits[split]!r}"
            else:
                said = f"{self.root} has no {lacks} of data.languages for {split}"
            endings = ", ".join(sorted(p.name for p in folder.glob("*") if p.is_file())[:8])
            near = closest(f"{name}.{lacks}", [p.name for p in folder.glob("*")]) if lacks else ""
            raise UserError(f"{said}; there is: {endings or 'nothing'}.{near}")
        return blocks

    # --- Parts ---

    def _divided(self, blocks: list[Parallel], parts: list[str]) -> dict[str, list[Parallel]]:
        """Each split's part of the blocks; each block gives its share."""
        labels = [i for i, block in enumerate(blocks) for _ in block.lines]
        shares = {split: self.shares[split] for split in parts if split != "train"}
        rows = divide(labels, groups(blocks), shares, self.seed)
        found: dict[str, list[Parallel]] = {}
        for split, chosen in rows.items():
            first, found[split] = 0, []
            for block in blocks:
                count = len(block.lines)
                found[split].append(
                    block.part([i - first for i in chosen if 0 <= i - first < count])
                )
                first += count
        return found


def has_files(root: Path, languages: Sequence[str], split: str) -> bool:
    """Whether a folder has any files of a split."""
    pairs = (f"{a}-{b}.{one}" for a in languages for b in languages if a != b for one in (a, b))
    endings = (*languages, *pairs, *(ending.removeprefix(".") for ending in TABLES))
    return any((root / f"{split}.{ending}").exists() for ending in endings)


def aligned(languages: Sequence[str], files: Sequence[Path]) -> Parallel:
    """Files of as many lines."""
    texts = [[line.strip() for line in read_lines(file)] for file in files]
    check_aligned(files, texts)
    return Parallel(dict(zip(languages, texts, strict=True)), range(len(texts[0])))


def groups(blocks: Sequence[Parallel]) -> list[str]:
    """Of each line of all blocks the name of its group: those that share a sentence, or a key, directly or
    through others. A group is called by the first of what its lines share, in whatever order they come."""
    return joined(list(names) for block in blocks for names in zip(*shared(block), strict=True))


def shared(block: Parallel) -> Iterator[list[str]]:
    """What lines may have in common: their sentences in each language, and their keys."""
    for language, texts in block.columns.items():
        yield [f"{language}\t{text}" for text in texts]
    if block.keys is not None:
        yield [f"\t{key}" for key in block.keys]
