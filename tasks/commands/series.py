"""Numeric series that a command is given, as tables."""

from __future__ import annotations

from pathlib import Path

from tasks.data.captions import TABLES
from tasks.data.kept import PARQUET, as_files
from tasks.data.series_files import Columns, Series, read_series
from tasks.errors import UserError, closest, in_short
from tasks.runs.checkpoints import Loaded


def series_of(loaded: Loaded, place: str) -> list[Series]:
    """The series of a table, by the columns that the model was trained on.

    Raises:
        UserError: no table, or what :func:`~tasks.data.series_files.read_series` refuses; parquet without the packages
            that read it.
    """
    kept, named = loaded.preprocess, loaded.assets.get("columns") or (None, None, None)
    known = Columns.learnt(named, kept.targets, kept.channels, kept.horizon)
    return read_series(table(place), known, needed=False)


def table(place: str) -> Path:
    """The file itself, or what a parquet file is read into, once.

    Raises:
        UserError: see :func:`series_of`.
    """
    path = Path(place)
    if path.suffix == PARQUET and path.is_file():
        folder = as_files(place)
        assert folder is not None
        return next(folder.glob("*.jsonl"))
    if path.suffix not in (*TABLES, PARQUET):
        known = ", ".join((*TABLES, PARQUET))
        raise UserError(f"{place} is no table of numeric series ({known}).")
    if not path.is_file():
        raise UserError(f"{place} does not exist.")
    return path


def chosen(found: list[Series], name: str | None, place: str) -> Series:
    """The series of this name, or the first.

    Raises:
        UserError: there is none.
    """
    if name is None:
        return found[0]
    for one in found:
        if one.name == name:
            return one
    raise UserError(
        f"{place} has no series {in_short(name)}.{closest(name, [one.name for one in found])}"
    )
