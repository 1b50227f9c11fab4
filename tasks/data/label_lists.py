"""Several labels of a row: as a list in one column, or in a column each; and numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from family.heads.problem import MULTI
from tasks.data.text_files import parse_json
from tasks.errors import UserError, closest, in_short, some_of

LARGEST = float(np.finfo(np.float32).max)
"""Of the numbers that models learn; beyond it they are infinite."""
YES, NO = ("1", "1.0", "true"), ("0", "0.0", "false", "")


@dataclass(frozen=True)
class LabelColumns:
    """Where the labels of a table stand.

    Args:
        one: the column of the label, or of the list of labels; None is found by its usual name.
        separator: between labels.
        each: a column of 0 and 1 for each label, in place of a list.

    Raises:
        UserError: both, or an empty separator.
    """

    one: str | int | None = None
    separator: str = ","
    each: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.one is not None and self.each:
            raise UserError("data.label_column beside data.label_columns: give one of them.")
        if not self.separator:
            raise UserError(
                "data.label_separator is empty: it stands between two labels, as a comma."
            )

    def problem(self, several: bool) -> str | None:
        """The ``problem_type`` of rows with several labels; None, where each has one."""
        return MULTI if several or self.each else None

    def read(self, row: Mapping[str, str], column: str | None, where: str) -> tuple[str, ...]:
        """The labels of a row, in its order; none of an empty field.

        Raises:
            UserError: a list that is none of JSON, or neither 0 nor 1 in a label's own column.
        """
        if not self.each:
            return listed(row.get(column or "", ""), self.separator, where)
        return tuple(name for name in self.each if is_so(row.get(name, ""), name, where))


def listed(text: str, separator: str, where: str) -> tuple[str, ...]:
    """The labels of a field: ``["a", "b"]``, or by their separator; each once."""
    text = text.strip()
    names: Any = text.split(separator)
    if text.startswith("["):
        try:
            names = parse_json(text, where)
        except UserError:
            raise UserError(
                f"{where} has the labels {in_short(text)}, which is no list of JSON."
            ) from None
    return tuple(dict.fromkeys(name for one in names if (name := str(one).strip())))


def is_so(value: str, name: str, where: str) -> bool:
    """Whether a row has the label of a column.

    Raises:
        UserError: neither 0 nor 1.
    """
    known = value.strip().lower()
    if known not in (*YES, *NO):
        raise UserError(f"{where} has {name}={in_short(value)}, which is neither 0 nor 1.")
    return known in YES


def refuse_list(name: str, where: str) -> None:
    """Refuse a class that is spelt as a list of labels, ``["a", "b"]``.

    Raises:
        UserError: it is one.
    """
    try:
        several = isinstance(json.loads(name), list)
    except ValueError:
        several = False
    if several:
        raise UserError(
            f"{where} has a list of labels, {in_short(name)}: data.multi_label=true reads several, else there is one "
            "class."
        )


def label_names(
    rows: Sequence[Sequence[str]], each: Sequence[str], where: str, least: int = 2
) -> list[str]:
    """The labels that occur, sorted; or those that have a column each, in that order.

    Args:
        least: how many there must be; a split for validation may lack some.

    Raises:
        UserError: fewer.
    """
    names = list(each) or sorted({name for row in rows for name in row})
    if len(names) < least:
        has = f"the label {in_short(names[0])} alone" if names else "no label at all"
        raise UserError(
            f"{where} has {has}: of several labels there must be two at least; one, and its contrary, are "
            "two classes."
        )
    return names


def indicators(
    rows: Sequence[Sequence[str]], names: Sequence[str], places: Sequence[str]
) -> np.ndarray:
    """``(rows, labels)`` float32: 1 where a row has a label.

    Raises:
        UserError: a label that is none of ours.
    """
    ids = {name: i for i, name in enumerate(names)}
    found = np.zeros((len(rows), len(names)), np.float32)
    for i, row in enumerate(rows):
        for name in row:
            if name not in ids:
                raise UserError(
                    f"{places[i]} has the label {in_short(name)}, which is none of the {len(names)} "
                    f"labels ({some_of(names, 5)}).{closest(name, ids)}"
                )
            found[i, ids[name]] = 1
    return found


def number(text: str, where: str) -> float:
    """The number that a label is.

    Raises:
        UserError: it is none, or is not finite.
    """
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not abs(found) <= LARGEST:
        raise UserError(
            f"{where} has the label {in_short(text)}, which is no number below {LARGEST:.3g}, as a regression needs."
        )
    return found


def check_same_problem(ours: str | None, assets: Mapping[str, Any]) -> None:
    """Refuse data with several labels an example for a checkpoint of one, and the other way about.

    Raises:
        UserError: see above.
    """
    theirs = assets.get("problem_type") == MULTI
    if theirs != (ours == MULTI):
        words = ("any of several labels", "one class")
        one, other = words if theirs else words[::-1]
        raise UserError(
            f"the checkpoint says {one} of each example, but the data have {other}: set "
            f"data.multi_label={str(theirs).lower()}."
        )
