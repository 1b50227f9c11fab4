"""Texts, or pairs of them, and what is said of them: tables, JSON lines, and the world of shapes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.data import shapes
from tasks.data.captions import choose, table_fields, table_rows
from tasks.data.label_lists import LabelColumns, refuse_list
from tasks.data.text_files import Column, tab_rows
from tasks.errors import UserError, in_short, some_of

TEXT_COLUMNS = ("text", "sentence", "review", "title")
LABEL_COLUMNS = ("label", "class", "category")
PAIR_COLUMNS = {
    "sentence1": "sentence2",
    "premise": "hypothesis",
    "question1": "question2",
    "question": "answer",
    "text1": "text2",
}
"""Of the usual names of a first text that of the second."""


class LabelledText(NamedTuple):
    """A text, the name of its class, where it stands, for messages, of which group it is, and the second
    text of a pair."""

    text: str
    label: str
    where: str
    group: str = ""
    pair: str | None = None


def read_labelled(
    file: Path,
    text_column: Column = None,
    label_column: Column = None,
    group_column: Column = None,
    quotes: bool = False,
    needed: bool = True,
    pair_column: Column = None,
    usual_labels: Sequence[str] = LABEL_COLUMNS,
    several: LabelColumns | None = None,
) -> list[LabelledText]:
    """All rows of a table, in their order.

    Args:
        text_column, label_column: None finds the columns by their usual names; a ``.tsv`` without
            such names is a sentence, a tab and a label a line. Numbers are of a table whose first line
            names nothing; None is the first column then, and the last.
        group_column: what rows of one group have in common; None is nothing.
        quotes: see :func:`~tasks.data.text_files.tab_rows`.
        needed: refuse a table without labels; otherwise all of its are empty.
        pair_column: the second text; None finds it where both have usual names, or is no second text.
        several: a row has any of several labels, or none: what it has, as JSON, is its label.

    Raises:
        UserError: missing, empty or not UTF-8 (with the byte offset); a column that is missing; a
            row without a text or a label.
    """
    asked: dict[str, Column] = {
        "text_column": text_column,
        "pair_column": pair_column,
        "label_column": label_column,
        "group_column": group_column,
    }
    each = several.each if several else ()
    if any(isinstance(column, int) for column in asked.values()):
        rows, columns = numbered_rows(file, quotes, asked)
    else:
        bare = not any(asked.values()) and not each and not has_header(file, quotes)
        rows = list(bare_rows(file, quotes) if bare else table_rows(file, quotes))
        columns = {option: None if one is None else str(one) for option, one in asked.items()}
    if not rows:
        raise UserError(f"{file} has no line below the names of the columns.")
    names = list(rows[0][1])
    text, pair = text_columns(file, names, columns["text_column"], columns["pair_column"])
    label: str | None = None
    if each and (needed or {*each} <= {*names}):
        for name in each:
            choose(file, names, name, (), "label_columns")
    elif columns["label_column"] is None and not {*names} & {*usual_labels}:
        if needed:
            raise UserError(
                f"{file} has no labels, only: {some_of(names)}; data.label_column may name them, "
                "and family predict and classify take texts without."
            )
    else:
        label = choose(file, names, columns["label_column"], usual_labels, "label_column")
    group = columns["group_column"]
    group = None if group is None else choose(file, names, group, (), "group_column")
    found = []
    for line, row in rows:
        said, where = row.get(label, "").strip() if label else "", f"{file} line {line}"
        if several and (label or each) and {*each} <= {*names}:
            said = json.dumps(several.read(row, label, where)) if said or each else ""
        one = LabelledText(
            row.get(text, "").strip(),
            said,
            where,
            row.get(group, "").strip() if group else "",
            row.get(pair, "").strip() if pair else None,
        )
        for column, value in ((text, one.text), (pair, one.pair), (label, one.label)):
            if column and not value and not (several and column == label):
                what = f"column {column}" if column.isdigit() else column
                raise UserError(f"{one.where} has an empty {what}.")
        found.append(one)
    return found


def text_columns(
    file: Path, names: Sequence[str], text: str | None, pair: str | None
) -> tuple[str, str | None]:
    """The columns of a text and, if there is one, of the second.

    Raises:
        UserError: there is no such column.
    """
    first = None if text is None else choose(file, names, text, (), "text_column")
    if pair is not None:
        second = choose(file, names, pair, (), "pair_column")
        usual = [name for name in (*TEXT_COLUMNS, *PAIR_COLUMNS) if name != second]
        return first or choose(file, names, None, usual, "text_column"), second
    if first is not None:
        return first, None
    both = next((pair for pair in PAIR_COLUMNS.items() if {*pair} <= {*names}), None)
    if both is not None and not {*TEXT_COLUMNS} & {*names}:
        return both
    return choose(file, names, None, TEXT_COLUMNS, "text_column"), None


def numbered_rows(
    file: Path, quotes: bool, asked: Mapping[str, Column]
) -> tuple[list[tuple[int, dict[str, str]]], dict[str, str | None]]:
    """As :func:`~tasks.data.captions.table_rows`, of a table whose columns have numbers in place of
    names; and the columns that are asked for, by their numbers from 0 on.

    Raises:
        UserError: a name among the numbers, a column that is not there, rows of other lengths.
    """
    named = next((name for name, one in asked.items() if isinstance(one, str)), None)
    if named is not None or file.suffix == ".jsonl":
        number = next(name for name, one in asked.items() if isinstance(one, int))
        where = (
            f"data.{named}={asked[named]!r} names one" if named else f"those of {file} have names"
        )
        raise UserError(
            f"data.{number}={asked[number]} is a column of a table without names, but {where}."
        )
    rows = list(table_fields(file, quotes))
    if not rows:
        raise UserError(f"{file} has no line with a text.")
    at, wide = rows[0][0], len(rows[0][1])
    found: dict[str, str | None] = {}
    usual = {"text_column": 0, "label_column": -1}
    for option, given in asked.items():
        column = usual.get(option) if given is None else given
        if isinstance(column, int):
            if not -wide <= column < wide:
                raise UserError(
                    f"data.{option}={column}: {file} line {at} has {wide} columns, from 0 on."
                )
            found[option] = str(column % wide)
        else:
            found[option] = None
    if asked["label_column"] is None and found["label_column"] in (
        found["text_column"],
        found["pair_column"],
    ):
        found["label_column"] = None  # there is none left for labels
    for line, row in rows:
        if len(row) != wide:
            raise UserError(f"{file} line {line} has {len(row)} columns, but line {at} has {wide}.")
    numbers = [str(i) for i in range(wide)]
    if rows[0][1] == numbers:  # as pandas names columns that have no names
        rows = rows[1:]
    return [(line, dict(zip(numbers, row, strict=True))) for line, row in rows], found


def has_header(file: Path, quotes: bool = False) -> bool:
    """Whether the first line names columns: always, but for a ``.tsv`` of two without usual names."""
    if file.suffix != ".tsv":
        return True
    names = next(tab_rows(file, quotes))[1]
    usual = {*TEXT_COLUMNS, *LABEL_COLUMNS, *PAIR_COLUMNS, *PAIR_COLUMNS.values()}
    return len(names) > 2 or bool({*names} & usual)


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
    for row in rows:
        refuse_list(row.label, row.where)
    names = sorted({row.label for row in rows})
    if len(names) < 2:
        raise UserError(
            f"every text has the label {in_short(names[0])} (from {rows[0].where} on): there must be two "
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


def said_shapes(count: int, seed: int, split: str) -> list[LabelledText]:
    """Sentences about scenes of the built-in world; the labels are the shapes that are said, as JSON.

    As in translation, no sentence belongs to two splits.
    """
    words = {shape: {shape, shapes.PLURALS_EN.get(shape, f"{shape}s")} for shape in shapes.SHAPES}
    found = []
    for i, text in enumerate(shapes.parallel(count, seed, split)["en"]):
        said = {*text.replace(",", "").split()}
        names = [shape for shape, forms in words.items() if forms & said]
        found.append(LabelledText(text, json.dumps(names), f"sentence {i + 1}"))
    return found
