"""Numeric series from tables: a step a line, or a series a line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.data.captions import table_rows
from tasks.data.label_lists import LARGEST, number
from tasks.data.text_files import parse_json
from tasks.errors import UserError, closest, in_short, some_of

SERIES_COLUMNS = ("series", "series_id", "unique_id", "item_id", "id")
TIME_COLUMNS = ("time", "step", "date", "ds", "timestamp", "datetime")
LABEL_COLUMNS = ("label", "class")
NOTHING = ("", "nan", "na", "null", "none")
"""What a missing value is written as."""
NUMBERED = re.compile(r"(?:(.*?)_?)?(\d+)")
"""A column of one step: ``speed_12``, or ``12``."""
EPOCH = datetime(1970, 1, 1)
ALONE = "value"
"""What the one channel is called whose steps have numbers for names."""
Row = tuple[int, Mapping[str, str]]


class Series(NamedTuple):
    """A series as it is stored."""

    name: str
    values: np.ndarray
    """``(steps, channels)`` float64, NaN where a value is missing."""
    channels: tuple[str, ...]
    where: str
    """File and line where it begins."""
    gap: str = ""
    """Where its first missing value stands."""
    label: str | None = None
    numbers: tuple[float, ...] = ()
    """Of each target."""
    times: tuple[str, ...] = ()
    """Of each step, where the file says them."""


@dataclass(frozen=True)
class Columns:
    """Which column is what; None is found by its usual name.

    Args:
        series: that of the names of series.
        time: by which the steps of a series are put in order; without one they are as the lines.
        label: of classes.
        targets: of numbers, one of a whole series in each.
        channels: of steps; empty is all others.
        labelled: whether series have a label or targets at all.
        alone: without a column of names all lines are one series; else each line is one.
    """

    series: str | None = None
    time: str | None = None
    label: str | None = None
    targets: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    labelled: bool = True
    alone: bool = False

    @classmethod
    def learnt(
        cls,
        named: Sequence[str | None],
        targets: tuple[str, ...],
        channels: tuple[str, ...],
        horizon: int,
    ) -> Columns:
        """Those of a class or numbers each, or of a forecast, whose targets are channels and which has no label.

        Args:
            named: the columns of series, time and label.
        """
        series, time, label = named
        if horizon:
            return cls(series, time, label, channels=channels, labelled=False, alone=True)
        return cls(series, time, label, targets, channels)


def read_series(file: Path, columns: Columns, needed: bool = True) -> list[Series]:
    """The series of a table, in the order in which they begin.

    *A step a line*: a column of names says which series a line belongs to; every further column that is
    neither time, label nor target is a channel. *A series a line*: without a column of names; a channel is a
    column with a list (of ``.jsonl`` and parquet), or a column for each step, ``speed_0``, ``speed_1`` ...,
    whose empty ends are no steps.

    Args:
        needed: labels and targets must be there; else a table may go without.

    Raises:
        UserError: a column that is missing, what is no number, a series without steps, channels of unequal
            length, labels of one series that differ.
    """
    rows = list(table_rows(file))
    if not rows:
        raise UserError(f"{file} has no line below the names of the columns.")
    names = list(rows[0][1])
    series = found(file, names, columns.series, SERIES_COLUMNS, "series_column")
    time = found(file, names, columns.time, TIME_COLUMNS, "time_column")
    label, targets = None, columns.targets if columns.labelled and needed else ()
    if columns.labelled and needed and not targets:
        label = found(file, names, columns.label, LABEL_COLUMNS, "label_column", True)
    for target in targets:
        found(file, names, target, (), "target_columns", True)
    said = {series, time, label}
    if columns.labelled:
        usual = [name for name in LABEL_COLUMNS if name not in columns.channels]
        said |= {columns.label, *columns.targets, *([] if columns.targets else usual)}
    others = [name for name in names if name not in said]
    steps = {} if columns.alone and series is None else wide_columns(rows, others, series)
    if steps:
        channels = known_channels(file, columns.channels or tuple(steps), steps)
        chosen = {name: steps[name] for name in channels}
        return [wide_series(file, row, chosen, series, label, targets) for row in rows]
    if series is None and not columns.alone:
        raise UserError(
            f"{file} has the columns {some_of(names)}: a step a line needs data.series_column, which says "
            "whose step it is; a series a line needs lists, or columns such as speed_0, speed_1."
        )
    channels = known_channels(file, columns.channels or others, names)
    return [
        one_series(file, name, part, channels, time, label, targets)
        for name, part in by_name(file, rows, series).items()
    ]


def found(
    file: Path,
    names: Sequence[str],
    wanted: str | None,
    usual: Sequence[str],
    option: str,
    needed: bool = False,
) -> str | None:
    """The column that an option names, or the first with a usual name.

    Raises:
        UserError: there is none, where it was named or is needed.
    """
    if wanted is not None:
        if wanted not in names:
            raise UserError(
                f"{file} has no column {in_short(wanted)} for data.{option}, only: {some_of(names)}."
                f"{closest(wanted, names)}"
            )
        return wanted
    chosen = next((name for name in usual if name in names), None)
    if chosen is None and needed:
        raise UserError(
            f"{file} has the columns {some_of(names)}: data.{option} must name the one to learn, or "
            "data.target_columns numbers."
        )
    return chosen


def known_channels(
    file: Path, channels: Sequence[str], there: Sequence[str] | Mapping[str, Any]
) -> tuple[str, ...]:
    """The channels, if the file has them.

    Raises:
        UserError: one that it has not, or none.
    """
    for name in channels:
        if name not in there:
            raise UserError(
                f"{file} has no column of the channel {name!r}, only: {some_of(there)}."
            )
    if not channels:
        raise UserError(f"{file} has no column of numbers beside names, times and labels.")
    return tuple(channels)


# --- A step a line ---


def by_name(file: Path, rows: Sequence[Row], series: str | None) -> dict[str, list[Row]]:
    """The lines of each series."""
    parts: dict[str, list[Row]] = {}
    for line, row in rows:
        name = file.stem if series is None else row.get(series, "").strip()
        if not name:
            raise UserError(f"{file} line {line} has an empty {series}: it belongs to no series.")
        parts.setdefault(name, []).append((line, row))
    return parts


def one_series(
    file: Path,
    name: str,
    rows: list[Row],
    channels: Sequence[str],
    time: str | None,
    label: str | None,
    targets: Sequence[str],
) -> Series:
    """A series of lines."""
    times: tuple[str, ...] = ()
    if time is not None:
        rows = in_order(file, name, rows, time)
        times = tuple(row[time] for _, row in rows)
    values = np.empty((len(rows), len(channels)))
    gap = ""
    for i, (line, row) in enumerate(rows):
        for j, channel in enumerate(channels):
            values[i, j] = value = measured(row.get(channel, ""), file, line, channel)
            if not gap and math.isnan(value):
                gap = f"{file} line {line} has no {channel}"
    words = {column: same(file, name, rows, column) for column in (label, *targets) if column}
    where = f"{file} line {rows[0][0]}"
    numbers = tuple(number(words[target], where) for target in targets)
    said = words.get(label) if label else None
    return Series(name, values, tuple(channels), where, gap, said, numbers, times)


def same(file: Path, name: str, rows: Sequence[Row], column: str) -> str:
    """What a column says in all lines of a series.

    Raises:
        UserError: it says two things, or nothing.
    """
    line, first = rows[0][0], rows[0][1].get(column, "").strip()
    for other, row in rows:
        if row.get(column, "").strip() != first:
            raise UserError(
                f"{file}: the series {in_short(name)} has {column}={in_short(first)} in line {line} but "
                f"{in_short(row.get(column, ''))} in line {other}."
            )
    if not first:
        raise UserError(f"{file} line {line} has an empty {column}.")
    return first


def in_order(file: Path, name: str, rows: list[Row], time: str) -> list[Row]:
    """The lines of a series by their times.

    Raises:
        UserError: what is no time, or the same one twice.
    """
    keyed = [(moment(row.get(time, ""), file, line, time), line, row) for line, row in rows]
    keyed.sort(key=lambda one: one[:2])
    for (before, line, _), (after, other, _) in pairwise(keyed):
        if before == after:
            raise UserError(
                f"{file}: the series {in_short(name)} has two steps of one {time}, in lines {line} and "
                f"{other}; data.series_column may name what tells series apart."
            )
    return [(line, row) for _, line, row in keyed]


def moment(text: str, file: Path, line: int, column: str) -> float:
    """A number, or a date of ISO 8601 in seconds."""
    try:
        value = float(text)
        if math.isfinite(value):
            return value
    except ValueError:
        try:
            date = datetime.fromisoformat(text.strip())
            offset = date.utcoffset() or timedelta(0)
            return (date.replace(tzinfo=None) - offset - EPOCH).total_seconds()
        except (ValueError, OverflowError):
            pass
    raise UserError(
        f"{file} line {line} has {column}={in_short(text)}, which is neither a number nor a date "
        "such as 2024-01-31 or 2024-01-31T12:00."
    )


def measured(text: Any, file: Path, line: int, column: str) -> float:
    """A value; NaN where it is missing.

    Raises:
        UserError: no number, or none that is finite in single precision.
    """
    try:
        value = float(text)
    except (TypeError, ValueError, OverflowError):
        value = math.nan if str(text).strip().lower() in NOTHING or text is None else math.inf
    if abs(value) > LARGEST:
        raise UserError(
            f"{file} line {line} has {column}={in_short(text)}, which is no number below {LARGEST:.3g}."
        )
    return value


# --- A series a line ---


def wide_columns(
    rows: Sequence[Row], names: Sequence[str], series: str | None
) -> dict[str, list[str]]:
    """Channel -> its columns: the one with the list, or those of its steps, in their order; nothing where a
    line is a step."""
    first = rows[0][1]
    lists = {name: [name] for name in names if first.get(name, "").lstrip().startswith("[")}
    if lists:
        return lists
    if series is not None and len({row.get(series) for _, row in rows}) < len(rows):
        return {}
    steps: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        if match := NUMBERED.fullmatch(name):
            steps.setdefault(match[1] or ALONE, []).append((int(match[2]), name))
    return {channel: [name for _, name in sorted(some)] for channel, some in steps.items()}


def wide_series(
    file: Path,
    row: Row,
    steps: Mapping[str, Sequence[str]],
    series: str | None,
    label: str | None,
    targets: Sequence[str],
) -> Series:
    """The series of a line."""
    line, fields = row
    where = f"{file} line {line}"
    name = fields.get(series, "").strip() if series else ""
    texts = {c: list(steps_of(fields, some, where)) for c, some in steps.items()}
    lengths = {channel: len(some) for channel, some in texts.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{channel} {count}" for channel, count in lengths.items())
        raise UserError(f"{where} has channels of unequal length: {said} steps.")
    if not next(iter(lengths.values())):
        raise UserError(f"{where} is a series without a step.")
    rows = [[measured(text, file, line, c) for text in some] for c, some in texts.items()]
    values = np.array(rows, np.float64).T
    gap = ""
    if np.isnan(values).any():
        step, channel = np.argwhere(np.isnan(values))[0].tolist()
        gap = f"{where} has no {list(steps)[channel]} at step {step}"
    one = [row]
    said_label = same(file, where, one, label) if label else None
    numbers = tuple(number(same(file, where, one, target), where) for target in targets)
    return Series(name or f"line {line}", values, tuple(steps), where, gap, said_label, numbers)


def steps_of(fields: Mapping[str, str], columns: Sequence[str], where: str) -> Iterator[Any]:
    """What a channel has at each step.

    Raises:
        UserError: a list of JSON that is none of numbers.
    """
    if len(columns) == 1 and (text := fields.get(columns[0], "")).lstrip().startswith("["):
        found = parse_json(text, f"{where}, {columns[0]},")
        for one in found if isinstance(found, list) else []:
            if not isinstance(one, int | float | str | None) or isinstance(one, bool):
                raise UserError(f"{where} has {in_short(one)} in {columns[0]}, which is no number.")
            yield one
        return
    texts = [fields.get(column, "") for column in columns]
    while texts and texts[-1].strip().lower() in NOTHING:
        texts.pop()
    yield from texts
