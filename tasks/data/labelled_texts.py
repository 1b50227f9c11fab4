"""Texts and their classes: tables, JSON lines, and the world of shapes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tasks.data import shapes
from tasks.data.captions import choose, table_rows
from tasks.data.text_files import tab_rows
from tasks.errors import UserError

TEXT_COLUMNS = ("text", "sentence", "review", "title")
LABEL_COLUMNS = ("label", "class", "category")


class LabelledText(NamedTuple):
    """A text, the name of its class, where it stands, for messages, and of which group it is."""

    text: str
    label: str
    where: str
    group: str = ""


def read_labelled(
    file: Path,
    text_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    quotes: bool = False,
    needed: bool = True,
) -> list[LabelledText]:
    """All rows of a table, in their order.

    Args:
        text_column, label_column: None finds the columns by their usual names; a ``.tsv`` without
            such names is a sentence, a tab and a label a line.
        group_column: what rows of one group have in common; None is nothing.
        quotes: see :func:`~tasks.data.text_files.tab_rows`.
        needed: refuse a table without labels; otherwise all of its are empty.

    Raises:
        UserError: missing, empty or not UTF-8 (with the byte offset); a column that is missing; a
            row without a text or a label.
    """
    named = any((text_column, label_column, group_column))
    bare = not named and not has_header(file, quotes)
    rows = list(bare_rows(file, quotes) if bare else table_rows(file, quotes))
    if not rows:
        raise UserError(f"{file} has no line below the names of the columns.")
    names = list(rows[0][1])
    text = choose(file, names, text_column, TEXT_COLUMNS, "text_column")
    label: str | None = None
    if label_column is None and not {*names} & {*LABEL_COLUMNS}:
        if needed:
            raise UserError(
                f"{file} has no labels, only: {', '.join(names)}; data.label_column may name them, "
                "and family predict and classify take texts without."
            )
    else:
        label = choose(file, names, label_column, LABEL_COLUMNS, "label_column")
    group = None if group_column is None else choose(file, names, group_column, (), "group_column")
    found = []
    for line, row in rows:
        one = LabelledText(
            row.get(text, "").strip(),
            row.get(label, "").strip() if label else "",
            f"{file} line {line}",
            row.get(group, "").strip() if group else "",
        )
        for column, value in ((text, one.text), (label, one.label)):
            if column and not value:
                raise UserError(f"{one.where} has an empty {column}.")
        found.append(one)
    return found


def has_header(file: Path, quotes: bool = False) -> bool:
    """Whether the first line names columns: always, but for a ``.tsv`` of two without usual names."""
    if file.suffix != ".tsv":
        return True
    names = next(tab_rows(file, quotes))[1]
    return len(names) > 2 or bool({*names} & {*TEXT_COLUMNS, *LABEL_COLUMNS})


def bare_rows(file: Path, quotes: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
    """As :func:`~tasks.data.captions.table_rows`, of a file whose columns have no names."""
    for number, fields in tab_rows(file, quotes):
        if len(fields) != 2:
            raise UserError(f"{file} line {number} needs a sentence, a tab and its label.")
        yield number, dict(zip(("text", "label"), fields, strict=True))


def class_names(rows: list[LabelledText]) -> list[str]:
    """The names of the classes, sorted; by their values where all are numbers.

    Raises:
        UserError: one class alone.
    """
    names = sorted({row.label for row in rows})
    if len(names) < 2:
        raise UserError(
            f"every text has the label {names[0]!r} (from {rows[0].where} on): there must be two "
            "classes at least."
        )
    try:
        return sorted(names, key=float)
    except ValueError:
        return names


def labelled_shapes(count: int, seed: int, split: str) -> list[LabelledText]:
    """Sentences of how one shape stands to another; the class is the shape at the left or on top.

    No word tells it: who stands where depends on the relation and on the order of the two. As in
    translation, no sentence belongs to two splits.
    """
    found: list[LabelledText] = []
    index = 0
    while len(found) < count:
        scene = shapes.sample(index, seed, split)
        index += 1
        singles = [group[0] for group in shapes.groups(scene) if len(group) == 1]
        if len(singles) < 2:
            continue
        one, other = singles[:2]
        how = shapes.relation(one, other)
        words = (shapes.english(thing, 1, "the") for thing in (one, other))
        text = f" is {shapes.RELATIONS[how][0]} ".join(words)
        first = one if how in ("left", "above") else other
        if zlib.crc32(text.encode()) % 10 in shapes.SPLITS[split]:
            found.append(LabelledText(text, first.shape, f"sentence {index}"))
    return found
