"""Pairs of texts: tables, JSON lines, and the world of shapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.data import shapes
from tasks.data.captions import choose, table_fields, table_rows
from tasks.data.label_lists import LARGEST
from tasks.data.labelled_texts import PAIR_COLUMNS, numbered_rows
from tasks.data.splits import joined
from tasks.data.text_files import Column
from tasks.errors import UserError, in_short

OPTIONS = ("text_column", "pair_column", "label_column", "negative_column")
PARTNERS = {
    **PAIR_COLUMNS,
    "anchor": "positive",
    "query": "document",
    "sentence_1": "sentence_2",
    "sentence_A": "sentence_B",
}
"""Of the usual names of a first text that of the second."""
USUAL = (
    (*PARTNERS,),
    (*PARTNERS.values(),),
    ("score", "label", "similarity", "relatedness_score"),
    ("negative",),
)
"""What the columns may be called, in the order of the options."""


class SentencePair(NamedTuple):
    """Two texts, how near they are by a number (None: they belong together), a text that does not belong
    to the first (empty: none), and where they stand."""

    text: str
    pair: str
    label: float | None
    negative: str
    file: str
    line: int

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.file} line {self.line}"

    @property
    def texts(self) -> tuple[str, ...]:
        """The two, or with the negative three."""
        return self[:2] + (self.negative,) * bool(self.negative)


def read_sentence_pairs(
    file: Path, columns: Sequence[Column] = (None,) * 4, quotes: bool = False
) -> list[SentencePair]:
    """All rows of a table, in their order.

    Args:
        columns: of :data:`OPTIONS`, in their order. Names are of the first line, or of JSON's fields;
            numbers, from 0 on, of a table whose first line is a pair like the others; None finds them by
            their usual names, or in a table without such names by their places: two texts, and a third
            column that is a number or another text.
        quotes: fields of a ``.tsv`` may stand in quotes, see :func:`~tasks.data.text_files.tab_rows`.

    Raises:
        UserError: missing, empty or not UTF-8; a column that is missing; a pair with an empty side; a
            label that is no number.
    """
    rows, wanted = named_rows(file, columns, quotes)
    if not rows:
        raise UserError(f"{file} has no line below the names of the columns.")
    names = list(rows[0][1])
    chosen: list[str | None] = []
    for (option, column), usual in zip(wanted.items(), USUAL, strict=True):
        needed = option in OPTIONS[:2] or column is not None or {*names} & {*usual}
        chosen.append(choose(file, names, column, usual, option) if needed else None)
    found = []
    for line, row in rows:
        values = ["" if name is None else row.get(name, "").strip() for name in chosen]
        for name, value in zip(chosen, values, strict=True):
            if name is not None and not value:
                what = f"column {name}" if name.isdecimal() else name
                raise UserError(f"{file} line {line} has an empty {what}.")
        label = None if chosen[2] is None else number_of(values[2], f"{file} line {line}")
        found.append(SentencePair(values[0], values[1], label, values[3], str(file), line))
    return found


def named_rows(
    file: Path, columns: Sequence[Column], quotes: bool
) -> tuple[list[tuple[int, dict[str, str]]], dict[str, str | None]]:
    """Line number and fields of each row by the names of the columns, or where they have none by their
    numbers; and which columns are wanted, by these names."""
    asked: dict[str, Column] = dict(zip(OPTIONS, columns, strict=True))
    if file.suffix != ".jsonl" and not any(column is not None for column in columns):
        names = next(table_fields(file, quotes), (0, []))[1]
        if not {*names} & {name for known in USUAL for name in known}:
            if len(names) not in (2, 3):
                raise UserError(
                    f"{file} has {len(names)} columns, and its first line names none of them as usual: "
                    f"data.{OPTIONS[0]} and data.{OPTIONS[1]} say which to read, by name or by number from "
                    "0 on."
                )
            asked |= {OPTIONS[0]: 0, OPTIONS[1]: 1}
            if len(names) == 3:
                asked[OPTIONS[2 if is_number(names[2]) else 3]] = 2
    if not any(isinstance(column, int) for column in asked.values()):
        named = {option: None if one is None else str(one) for option, one in asked.items()}
        return list(table_rows(file, quotes)), named
    if asked[OPTIONS[1]] is None:
        asked[OPTIONS[1]] = 1
    rows, found = numbered_rows(file, quotes, asked)
    if found[OPTIONS[2]] == found[OPTIONS[3]]:  # the last column, where nobody says of what
        found[OPTIONS[2]] = None
    return rows, found


def is_number(text: str) -> bool:
    """Whether a text is a number, and finite."""
    try:
        return abs(float(text)) <= LARGEST
    except ValueError:
        return False


def number_of(text: str, where: str) -> float:
    """A label.

    Raises:
        UserError: it is no number.
    """
    if not is_number(text):
        raise UserError(
            f"{where} has the label {in_short(text)}, which is no number below {LARGEST:.3g}."
        )
    return float(text)


def groups_of(rows: Sequence[SentencePair]) -> list[str]:
    """A name for each pair, the same for pairs that share a text, or that others join which do."""
    return joined(row.texts for row in rows)


# --- The world of shapes ---------------------------------------------------------------------


def caption_pairs(count: int, seed: int, split: str) -> list[SentencePair]:
    """English captions of scenes, and their French ones."""
    pairs = shapes.translation_pairs(count, seed, split)
    return [SentencePair(en, fr, None, "", "shapes", i) for i, (fr, en) in enumerate(pairs)]
