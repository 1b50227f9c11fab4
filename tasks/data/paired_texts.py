"""Texts with what is to be made of them: tables, JSON lines, and tasks of the world of shapes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tasks.data import shapes
from tasks.data.captions import choose, json_rows, table_rows
from tasks.errors import UserError, closest, in_short

USUAL = (
    ("source", "target"),
    ("input", "output"),
    ("input_text", "target_text"),
    ("text", "summary"),
    ("question", "answer"),
)
"""Columns of a text and of what is to be made of it, which go together."""


class PairedText(NamedTuple):
    """A text, what is to be made of it, the row of its table from 0 on, and what it is marked by, where a
    column says so: the name of its task, and what stands before the text."""

    source: str
    target: str
    row: int
    task: str = ""
    prefix: str = ""


class Columns(NamedTuple):
    """Which columns of a table are read; without a name source and target are found by usual ones."""

    source: str | None = None
    target: str | None = None
    task: str | None = None
    prefix: str | None = None


def read_paired(file: Path, columns: Columns, quotes: bool = False) -> list[PairedText]:
    """All rows of a table whose first line names the columns, or of JSON lines, in their order.

    Args:
        quotes: see :func:`~tasks.data.text_files.tab_rows`.

    Raises:
        UserError: missing, empty or not UTF-8; a column that is missing; a field that is empty, or of JSON
            lines no text.
    """
    found: list[PairedText] = []
    names: dict[str, str] = {}
    for line, row in rows_of(file, quotes):
        if not names:
            names = chosen(file, list(row), columns)
        values = {}
        for option, name in names.items():
            value = row.get(name)
            if isinstance(value, list | dict):
                raise UserError(
                    f"{file} line {line} has no text as {name!r}, but {in_short(value)}."
                )
            values[option] = "" if value is None else str(value).strip()
            if not values[option]:
                raise UserError(f"{file} line {line} has an empty {name}.")
        found.append(PairedText(row=len(found), **values))
    if not found:
        raise UserError(f"{file} has no line below the names of the columns.")
    return found


def rows_of(file: Path, quotes: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and fields of each row; of JSON lines with the values as they are."""
    return json_rows(file) if file.suffix == ".jsonl" else table_rows(file, quotes)


def chosen(file: Path, names: list[str], columns: Columns) -> dict[str, str]:
    """What is read -> the column that it stands in.

    Raises:
        UserError: there is no such column.
    """
    pair = next((pair for pair in USUAL if {*pair} <= {*names}), None)
    if pair is None or columns.source or columns.target:
        sides = zip(*USUAL, strict=True)
        pair = tuple(  # type: ignore[assignment]
            choose(file, names, getattr(columns, side), usual, f"{side}_column")
            for side, usual in zip(("source", "target"), sides, strict=True)
        )
    assert pair is not None
    found = {"source": pair[0], "target": pair[1]}
    for option in ("task", "prefix"):
        name = getattr(columns, option)
        if name is not None:
            found[option] = choose(file, names, name, (), f"{option}_column")
    return found


# --- The world of shapes ---


def translations(scene: shapes.Scene) -> tuple[str, str, str]:
    """French to English."""
    english, french = shapes.captions(scene)
    return french, english, english


def counts(scene: shapes.Scene) -> tuple[str, str, str]:
    """How many things there are of a list of them."""
    said = listing(scene)
    return said, str(len(scene.objects)), said


def colours(scene: shapes.Scene) -> tuple[str, str, str] | None:
    """Of what colour the last is that has its shape alone; of no such thing nothing."""
    groups = shapes.groups(scene)
    kinds = [group[0].shape for group in groups]
    alone = [group[0] for group in groups if kinds.count(group[0].shape) == 1]
    if not alone or len(groups) == 1:
        return None
    said = listing(scene)
    return f"{alone[-1].shape} in {said}", alone[-1].colour, said


def turned(scene: shapes.Scene) -> tuple[str, str, str] | None:
    """How two things stand to each other, said from the other side."""
    singles = [group[0] for group in shapes.groups(scene) if len(group) == 1]
    if len(singles) < 2:
        return None
    one, other = singles[:2]
    said, back = (
        f" is {shapes.RELATIONS[shapes.relation(*pair)][0]} ".join(
            shapes.english(thing, 1, "the") for thing in pair
        )
        for pair in ((one, other), (other, one))
    )
    return said, back, said


def listing(scene: shapes.Scene) -> str:
    """Everything in a scene."""
    *most, last = (shapes.english(group[0], len(group)) for group in shapes.groups(scene))
    return f"{', '.join(most)} and {last}" if most else last


Maker = Callable[[shapes.Scene], tuple[str, str, str] | None]
BUILT_IN: dict[str, tuple[str, Maker]] = {
    "translate": ("translate French to English: ", translations),
    "count": ("count: ", counts),
    "colour": ("colour of ", colours),
    "turn": ("turn around: ", turned),
}
"""Tasks -> what stands before their texts, and what makes of a scene a text, its answer, and the sentence
by which it belongs to a split."""


def paired_shapes(name: str, count: int, seed: int, split: str) -> list[PairedText]:
    """So many texts of a built-in task. As in translation, no sentence belongs to two splits.

    Raises:
        UserError: no such task.
    """
    if name not in BUILT_IN:
        raise UserError(
            f"data.tasks has {name!r} without a root, but the built-in tasks are "
            f"{', '.join(BUILT_IN)}.{closest(name, BUILT_IN)}"
        )
    make, found, index = BUILT_IN[name][1], list[PairedText](), 0
    while len(found) < count:
        made = make(shapes.sample(index, seed, split))
        index += 1
        if made is not None and zlib.crc32(made[2].encode()) % 10 in shapes.SPLITS[split]:
            found.append(PairedText(made[0], made[1], len(found)))
    return found
