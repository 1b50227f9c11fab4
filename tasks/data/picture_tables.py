"""Tables of pictures and what is to be said of each: a class, several labels, or a number."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tasks.data.captions import IMAGE_COLUMNS, TABLES, choose, picture_folder, table_rows
from tasks.data.images import OnBad, check_images
from tasks.data.label_lists import LabelColumns, indicators, label_names, number, refuse_list
from tasks.data.labelled_images import Labelled, read_path
from tasks.data.labelled_texts import LABEL_COLUMNS
from tasks.data.split_files import files_of, own_file
from tasks.data.splits import names_of, usual
from tasks.errors import UserError, in_short

NUMBER_COLUMNS = ("label", "score", "value", "target")


def find_table(root: Path, split: str) -> Path | None:
    """The table of a split: ``SPLIT.csv``, ``.tsv`` or ``.jsonl``, or ``metadata`` in the folder of the
    split; of "train" also one of everything, the only table of a folder or a file. None without any."""
    if root.is_file():
        return root if split == "train" and root.suffix in TABLES else None
    if not root.is_dir():
        return None
    found = own_file(root, split, TABLES)
    inner = (root / n / f"metadata{end}" for n in names_of(split) for end in TABLES)
    found = found or next((file for file in inner if file.is_file()), None)
    if found is None and split == "train":
        files = files_of(root, TABLES)
        alone = len(files) == 1 and usual(files[0].stem) not in ("val", "test")
        return files[0] if alone else None
    return found


def labelled_table(
    file: Path,
    split: str,
    image_column: str | None,
    columns: LabelColumns,
    several: bool,
    on_bad: OnBad,
) -> Labelled:
    """The pictures of a table with their classes, or, with ``several``, with any of the labels.

    Raises:
        UserError: a column that is missing, a row without a picture or, unless there may be none, without a
            label; a picture that cannot be read.
    """
    if several and columns.each:
        names, texts, places, paths = read_rows(file, split, image_column, columns.each, on_bad)
        rows = [
            columns.read(dict(zip(columns.each, row, strict=True)), None, place)
            for row, place in zip(texts, places, strict=True)
        ]
    else:
        label = (columns.one, LABEL_COLUMNS) if columns.one is None else (columns.one, ())
        names, texts, places, paths = read_rows(
            file, split, image_column, [label], on_bad, blank=several
        )
        rows = [
            columns.read({"": text}, "", place) if several else (text,)
            for (text,), place in zip(texts, places, strict=True)
        ]
    if several:
        least = 2 if split == "train" else 0
        classes = label_names(rows, columns.each, str(file), least)
        labels = indicators(rows, classes, places)
    else:
        for (name,), place in zip(rows, places, strict=True):
            refuse_list(name, place)
        classes = sorted({name for row in rows for name in row})
        labels = np.array([classes.index(row[0]) for row in rows])
    return Labelled(classes, labels, names, partial(read_path, paths))


def numbered_table(
    file: Path, split: str, image_column: str | None, label_column: str | None, on_bad: OnBad
) -> Labelled:
    """The pictures of a table with a number each, ``(pictures,)`` float32; there are no classes.

    Raises:
        UserError: as :func:`labelled_table`; a label that is no number.
    """
    label = (label_column, NUMBER_COLUMNS if label_column is None else ())
    names, texts, places, paths = read_rows(file, split, image_column, [label], on_bad)
    numbers = [number(text, place) for (text,), place in zip(texts, places, strict=True)]
    return Labelled([], np.array(numbers, np.float32), names, partial(read_path, paths))


def read_rows(
    file: Path,
    split: str,
    image_column: str | None,
    wanted: Sequence[str | tuple[str | int | None, Sequence[str]]],
    on_bad: OnBad,
    blank: bool = False,
) -> tuple[list[str], list[list[str]], list[str], list[Path]]:
    """Of each picture that can be read its name, what the wanted columns say, its line, and its path.

    Args:
        wanted: columns, by their names, or by what the option gives and the usual names.
        blank: the columns may be empty.
    """
    rows = list(table_rows(file))
    if not rows:
        raise UserError(f"{file} has no line below the names of the columns.")
    known = list(rows[0][1])
    image = choose(file, known, image_column, IMAGE_COLUMNS, "image_column")
    chosen = []
    for one in wanted:
        if isinstance(one, str):
            chosen.append(choose(file, known, one, (), "label_columns"))
        else:
            named = None if one[0] is None else str(one[0])
            chosen.append(choose(file, known, named, one[1], "label_column"))
    names, texts, places = [], [], []
    for line, row in rows:
        place = f"{file} line {line}"
        values = [row.get(column, "").strip() for column in chosen]
        if not row.get(image):
            raise UserError(f"{place} names no picture in the column {in_short(image)}.")
        if not blank and len(chosen) == 1 and not values[0]:
            raise UserError(f"{place} has an empty {chosen[0]}.")
        names.append(row[image])
        texts.append(values)
        places.append(place)
    folder = picture_folder(file, names, split)
    paths = [folder / name for name in names]
    for path, place in zip(paths, places, strict=True):
        if on_bad == "stop" and not os.path.isfile(path):
            raise UserError(f"{place} names {path}, which does not exist.")
    keep = check_images(paths, on_bad)
    return (
        [names[i] for i in keep],
        [texts[i] for i in keep],
        [places[i] for i in keep],
        [paths[i] for i in keep],
    )
