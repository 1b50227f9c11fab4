"""Sentences that a command is given, reads from a file, or from standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tasks.data.captions import CAPTION_COLUMNS, TABLES, table_rows
from tasks.data.images import IMAGE_ENDINGS
from tasks.data.labelled_texts import TEXT_COLUMNS, bare_rows, has_header, read_labelled
from tasks.data.text_files import MARK, read_text
from tasks.errors import UserError, closest

LINES = ".txt"
"""The ending of a file that holds a text a line."""
PLACE = ("file", "line")
"""What says of a text where it stands."""


class Text(NamedTuple):
    """A text, and the file and line that it stands in, where it was read from one; the second of a pair."""

    text: str
    file: str = ""
    line: int = 0
    pair: str | None = None

    def record(self) -> dict[str, Any]:
        """As answers name it: ``file`` and ``line`` where it has them, ``text`` and ``pair``."""
        where = {"file": self.file, "line": self.line} if self.file else {}
        return {**where, "text": self.text, **({} if self.pair is None else {"pair": self.pair})}


def given_or_read(given: list[str]) -> Iterator[str]:
    """The sentences given, or those of the files that are named; without any, the lines of standard
    input as they come.

    Raises:
        UserError: see :func:`texts_of`.
    """
    return (one.text for one in texts_of(given))


def texts_of(given: list[str], column: str | None = None) -> Iterator[Text]:
    """The same, with where they stand.

    What names a file is that file, never a text: a ``.txt`` is a text a line, a ``.csv``, ``.tsv`` or
    ``.jsonl`` a table.

    Args:
        column: of tables, that of the texts; None finds it by its usual names.

    Raises:
        UserError: a text that is not UTF-8, a file that is missing or holds no texts.
    """
    for sentence in given:
        file = named_file(checked(sentence))
        yield from [Text(sentence)] if file is None else read_texts(file, column)
    if given:
        return
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            text = line.decode("utf-8")
            yield Text((text.removeprefix(MARK) if number == 1 else text).strip())
        except UnicodeDecodeError as error:
            raise UserError(
                f"standard input is not UTF-8: see line {number}, byte {error.start + 1}."
            ) from None


def pairs_of(
    given: list[str], seconds: list[str], column: str | None, pair_column: str | None
) -> Iterator[Text]:
    """Pairs of texts: those given with the second ones beside them, or those of tables.

    Args:
        seconds: as many as are given; none where files are.
        column, pair_column: of tables, those of the texts; None finds them by their usual names, see
            :func:`~tasks.data.labelled_texts.read_labelled`. Numbers are of tables without names.

    Raises:
        UserError: more or fewer second texts, files that hold no pairs.
    """
    if not given:
        raise UserError("the model reads pairs: give texts with --pair each, or tables of them.")
    if seconds:
        if len(seconds) != len(given):
            raise UserError(
                f"{len(given)} text{'s' * (len(given) != 1)} but {len(seconds)} of --pair: give as many."
            )
        for text, pair in zip(given, seconds, strict=True):
            yield Text(checked(text), pair=checked(pair))
        return
    for one in given:
        file = named_file(checked(one))
        if file is None:
            raise UserError(f"the model reads pairs, but {one!r} stands alone: give --pair too.")
        if file.suffix.lower() == LINES:
            raise UserError(f"{file} has single texts, but the model reads pairs: give a table.")
        for row in read_labelled(
            file, by_number(column), pair_column=by_number(pair_column), needed=False
        ):
            if row.pair is None:
                raise UserError(f"{file} has single texts: --pair_column names the second ones.")
            yield Text(row.text, str(file), int(row.where.rpartition(" ")[2]), row.pair)


def by_number(column: str | None) -> int | str | None:
    """A column of the command line, by its name or its number."""
    return int(column) if column is not None and column.isdigit() else column


def named_file(sentence: str) -> Path | None:
    """The file that an argument names; None where it is a text.

    Raises:
        UserError: a file or folder that holds no texts, or one that does not exist.
    """
    path = Path(sentence)
    try:
        there = bool(sentence) and path.exists()
    except (OSError, ValueError):  # too long for a name, or no characters of one
        return None
    ending = path.suffix.lower()
    if there and path.is_file() and ending in (LINES, *TABLES):
        return path
    texts = f"texts are read from {LINES} (one a line), {', '.join(TABLES)}, or standard input"
    if there:
        kind = "a folder" if path.is_dir() else "a file"
        kind = "a picture" if ending in IMAGE_ENDINGS else kind
        raise UserError(f"{sentence} is {kind}, but the model reads texts: {texts}.")
    if ending in (LINES, *TABLES, *IMAGE_ENDINGS) and len(sentence.split()) == 1:
        siblings = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UserError(f"{sentence} does not exist.{closest(path.name, siblings)}")
    return None


def names_files(given: Iterable[str]) -> bool:
    """Whether some of what is given are files of texts."""
    return any(Path(one).suffix.lower() in (LINES, *TABLES) for one in given)


def read_texts(file: Path, column: str | None = None) -> Iterator[Text]:
    """The texts of a file, labelled or not; see :func:`texts_of`."""
    if file.suffix.lower() == LINES:
        lines = read_text(file).removesuffix("\n").split("\n")
        yield from (Text(line.strip(), str(file), n) for n, line in enumerate(lines, 1))
        return
    name = column
    for number, row in table_rows(file) if column or has_header(file) else bare_rows(file):
        if name is None or name not in row:
            name = text_column(file, list(row), column)
        yield Text(row[name].strip(), str(file), number)


def text_column(file: Path, names: list[str], wanted: str | None) -> str:
    """The column that is wanted; else the one with a usual name, or the only one.

    Raises:
        UserError: there is no such column.
    """
    usual = (*TEXT_COLUMNS, *CAPTION_COLUMNS, *(names if len(names) == 1 else ()))
    for name in usual if wanted is None else (wanted,):
        if name in names:
            return name
    what = "called text" if wanted is None else f"called {wanted}"
    raise UserError(
        f"{file} has the columns {', '.join(names)}, none of them {what}: --column names the texts'."
    )


def checked(sentence: str) -> str:
    """A sentence of the command line, if it is text.

    Raises:
        UserError: it is not UTF-8.
    """
    # Python keeps bytes that are not UTF-8 as lone surrogates.
    if any("\ud800" <= character <= "\udfff" for character in sentence):
        raise UserError(f"the sentence {sentence!r} is not UTF-8.")
    return sentence
