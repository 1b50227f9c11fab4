"""Read text files, with errors that say where the mistake is."""

from __future__ import annotations

import csv
import gettext
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from family.inputs.pointers import refuse_pointer
from tasks.errors import UserError, closest, user_errors

Pairs = list[tuple[str, str]]
Column = int | str | None
"""Of a table: its number, from 0 on or, below 0, from the end; or its name."""
csv.field_size_limit(1 << 30)  # of characters: whole documents stand in fields
MARK = "\ufeff"
"""The byte-order mark that some programs put before a text; it is no part of it."""
HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""What JSON escapes a character by that needs two."""


def read_text(path: Path) -> str:
    """The whole of a UTF-8 file, without a byte-order mark.

    Raises:
        UserError: missing, empty, or not UTF-8 (with the byte offset).
    """
    refuse_no_file(path)
    with user_errors():
        refuse_pointer(path)
    try:
        text = path.read_bytes().decode("utf-8").removeprefix(MARK)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: see the byte at offset {error.start}.") from None
    if not text.strip():
        raise UserError(f"{path} is empty.")
    return text


def refuse_no_file(path: Path) -> None:
    """Refuse what is not there, and what is there but no file: a folder, or a pipe, which would be waited for.

    Raises:
        UserError: see above.
    """
    if os.path.isfile(path):
        return
    if os.path.lexists(path):
        what = "is a link to nothing" if not os.path.exists(path) else "is no file"
        raise UserError(f"{path} {what}.")
    siblings = [p.name for p in path.parent.glob("*")] if os.path.isdir(path.parent) else []
    raise UserError(f"{path} does not exist.{closest(path.name, siblings)}")


def parse_json(text: str, where: str, lines: bool = False) -> Any:
    """What JSON says.

    Args:
        where: file and line, for messages.
        lines: say in which line of the text a mistake is.

    Raises:
        UserError: no JSON, or what cannot be taken in: lists in lists without end, a number of thousands of
            digits, half of a character of two (``\\ud83d`` alone).
    """
    try:
        found = json.loads(text)
        if HALF.search(text):  # most often beside its other half
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if lines else ""
        raise UserError(f"{where} is not JSON: {line}{error.msg}.") from None
    except RecursionError:
        raise UserError(f"{where} is no JSON that can be read: it nests too deep.") from None
    except UnicodeEncodeError as error:
        half = error.object[error.start].encode("ascii", "backslashreplace").decode()
        raise UserError(f"{where} has {half} alone, half of a character.") from None
    except ValueError:
        raise UserError(f"{where} is no JSON that can be read: a number is too long.") from None


def text_start(path: Path) -> int:
    """The byte at which the text of a UTF-8 file begins: behind a byte-order mark, if there is one."""
    with user_errors():
        refuse_pointer(path)
    mark = MARK.encode()
    with path.open("rb") as file:
        return len(mark) if file.read(len(mark)) == mark else 0


def read_lines(path: Path) -> list[str]:
    """The lines of a file; only line feeds end a line, as ``wc -l`` counts them.

    Raises:
        UserError: as :func:`read_text`, or a line is empty.
    """
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise UserError(f"{path} line {number} is empty: every line needs a sentence.")
    return lines


def tab_rows(path: Path, quotes: bool) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line of a ``.tsv``, and its number.

    Args:
        quotes: fields may stand in quotes, as spreadsheets write those that hold a tab, a line feed
            or (doubled) a quote; else a quote is a character like any other.

    Raises:
        UserError: as :func:`read_lines`; a field in quotes that does not end, or that goes on
            behind them.
    """
    if not quotes:
        yield from enumerate((line.split("\t") for line in read_lines(path)), 1)
        return
    lines = read_text(path).split("\n")
    reader = csv.reader((f"{line}\n" for line in lines), delimiter="\t", strict=True)
    try:
        yield from ((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise quote_error(path, reader.line_num, error) from None


def quote_error(path: Path, line: int, error: csv.Error) -> UserError:
    """What is wrong with the quotes of a table."""
    return UserError(f"{path} line {line} cannot be read: {error}.")


def has_split(root: Path, split: str, source: str, target: str) -> bool:
    """Whether :func:`read_parallel` would find files for this split."""
    names = [f"{split}.{source}", f"{split}.{target}", f"{split}.tsv", f"{split}.po", f"{split}.mo"]
    return any((root / name).exists() for name in names)


def read_parallel(root: Path, split: str, source: str, target: str, quotes: bool = False) -> Pairs:
    """Sentence pairs of one split, in any of the layouts people keep them in.

    ``SPLIT.SOURCE`` with ``SPLIT.TARGET``, aligned by line; ``SPLIT.tsv`` with two columns, and a
    first line that may name the languages; gettext's ``SPLIT.po`` or ``SPLIT.mo``. White space around
    a sentence is none of it, as everywhere that sentences are read.

    Args:
        quotes: see :func:`tab_rows`.

    Raises:
        UserError: files that are missing, empty, not UTF-8, or of unequal line counts.
    """
    if not root.is_dir():
        raise UserError(f"data.root {root} is not a folder.")
    pairs = read_pairs(root, split, source, target, quotes)
    return [(left.strip(), right.strip()) for left, right in pairs]


def read_file(file: Path, source: str, target: str, quotes: bool = False) -> Pairs:
    """As :func:`read_parallel`, of the one file that is named, or of the two of which it is one.

    Raises:
        UserError: it is of another kind.
    """
    ending = file.suffix.removeprefix(".")
    if ending == "tsv":
        pairs = read_tsv(file, source, target, quotes)
    elif ending in ("po", "mo"):
        pairs = read_po(file) if ending == "po" else read_mo(file)
    elif ending in (source, target):
        pairs = read_aligned(file.parent, file.stem, source, target)
    else:
        raise UserError(
            f"data.root {file} is of no kind that holds translations: .tsv, .po, .mo, or .{source} "
            f"with .{target} beside it."
        )
    return [(left.strip(), right.strip()) for left, right in pairs]


def read_pairs(root: Path, split: str, source: str, target: str, quotes: bool = False) -> Pairs:
    """:func:`read_parallel`, with sentences as they stand in the files."""
    if (root / f"{split}.tsv").exists():
        return read_tsv(root / f"{split}.tsv", source, target, quotes)
    for ending, read in (("po", read_po), ("mo", read_mo)):
        if (root / f"{split}.{ending}").exists():
            return read(root / f"{split}.{ending}")
    return read_aligned(root, split, source, target)


def read_aligned(root: Path, split: str, source: str, target: str) -> Pairs:
    """Two files of as many lines."""
    paths = root / f"{split}.{source}", root / f"{split}.{target}"
    left, right = (read_lines(path) for path in paths)
    check_aligned(paths, (left, right))
    return list(zip(left, right, strict=True))


def check_aligned(paths: Sequence[Path], texts: Sequence[Sequence[str]]) -> None:
    """Refuse files of unequal numbers of lines.

    Raises:
        UserError: see above.
    """
    for path, lines in zip(paths, texts, strict=True):
        if len(lines) != len(texts[0]):
            raise UserError(
                f"{paths[0]} has {len(texts[0])} lines but {path} has {len(lines)}: "
                "line-aligned files need as many."
            )


def read_tsv(path: Path, source: str, target: str, quotes: bool = False) -> Pairs:
    """Two tab-separated columns; a header of the two language names may swap them."""
    numbered, left, right = list(tab_rows(path, quotes)), 0, 1
    header = numbered[0][1] if numbered else []
    if {source, target} <= set(header):
        if len(numbered) == 1:
            raise UserError(f"{path} has a header alone, and no sentence.")
        left, right = header.index(source), header.index(target)
        numbered = numbered[1:]
    for number, row in numbered:
        if len(row) <= max(left, right) or not row[left].strip() or not row[right].strip():
            raise UserError(f"{path} line {number} needs a sentence, a tab, and its translation.")
    return [(row[left], row[right]) for _, row in numbered]


def read_mo(path: Path) -> Pairs:
    """A compiled gettext catalogue: message and translation."""
    refuse_no_file(path)
    try:
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)
    except Exception as error:  # the library has no kind of its own
        raise UserError(f"{path} is not a gettext catalogue: {error}.") from None
    pairs = []
    for key, text in catalogue._catalog.items():  # type: ignore[attr-defined]
        message = key[0] if isinstance(key, tuple) else key
        if message and text and not (isinstance(key, tuple) and key[1]):
            pairs.append((message.split("\x04")[-1], text))
    return _some(pairs, path)


def read_po(path: Path) -> Pairs:
    """A gettext catalogue as text, through polib (``pip install transformer-family[gettext]``)."""
    try:
        import polib
    except ImportError:
        raise UserError(f"{path} needs polib: pip install 'transformer-family[gettext]'.") from None
    read_text(path)
    try:
        entries = polib.pofile(str(path)).translated_entries()
    except Exception as error:  # the library has no kind of its own
        raise UserError(f"{path} is not a gettext catalogue: {error}.") from None
    pairs = []
    for entry in entries:
        if entry.obsolete or entry.fuzzy:
            continue
        if entry.msgid_plural:
            pairs.append((entry.msgid, entry.msgstr_plural[0]))
            if 1 in entry.msgstr_plural:
                pairs.append((entry.msgid_plural, entry.msgstr_plural[1]))
        else:
            pairs.append((entry.msgid, entry.msgstr))
    return _some(pairs, path)


def _some(pairs: Pairs, path: Path) -> Pairs:
    if not pairs:
        raise UserError(f"{path} holds no translated message.")
    return pairs
