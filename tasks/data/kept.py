"""Data where users keep them: data sets of Hugging Face's ``datasets`` on disk, and parquet files.

They are read once, into the files that every reader here knows: a ``SPLIT.jsonl`` for each split (or lines of
text, or a table of translations), pictures beside it, in a folder of the cache that is named by what was read.
So all tasks take them, and what is wrong in a row is said as everywhere."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from tasks.data.captions import IMAGE_COLUMNS, TABLES, json_rows, picture_folder, table_rows
from tasks.data.images import IMAGE_ENDINGS
from tasks.data.split_files import files_of
from tasks.errors import UserError, closest, some_of

CACHE = Path(".cache/data")
PARQUET = ".parquet"
MARKS = ("dataset_dict.json", "state.json")
"""Of a folder that ``save_to_disk`` wrote: of several splits, and of one."""
PICTURES = ("images", *IMAGE_COLUMNS)
"""What readers here call a column of pictures."""
EXTRA = "pip install 'transformer-family[datasets]'"
ROWS = 500
"""Held in memory at a time."""
Row = dict[str, Any]
Columns = Mapping[str, str] | None
"""Our name of a column -> theirs."""
Rows = tuple[Any, Iterable[Row]]
"""The features of ``datasets`` (None without), and the rows of a split."""


def as_files(
    root: str | None,
    columns: Columns = None,
    form: str = "jsonl",
    quotes: bool = False,
    images: str | None = None,
) -> Path | None:
    """Where the files of ``data.root`` are; None is the built-in world.

    Args:
        columns: what the columns are called, for readers here: ``{"text": "sentence", "label": "class"}``; the
            others are left out. Without it they keep their names.
        form: of the files: "jsonl", "txt" (the column ``text``, a document a line feed apart), or "tsv".
        quotes: fields of a ``.tsv`` may stand in quotes.
        images: the folder of the pictures, from ``root``; None is where pictures usually are.

    Raises:
        UserError: a column that there is not, by its name; a package that is not installed; tables beside
            parquet files.
    """
    if columns and root is None:
        raise UserError("data.columns is for data of one's own: give data.root, too.")
    if root is None:
        return None
    place = Path(root)
    foreign = is_kept(place)
    if not foreign and not columns:
        return place
    if not foreign and not tables_of(place):
        raise UserError(f"data.columns names columns, but {root} has no table.")

    def write_all(new: Path) -> None:
        for split, rows in splits_of(place, columns, quotes, images).items():
            write(rows, new, split, columns, form, str(place))

    return made_once(place, columns, f"{form} {quotes} {images}", write_all)


def made_once(place: Path, columns: Columns, form: str, make: Callable[[Path], None]) -> Path:
    """The folder of the cache for a place that is read so; ``make`` fills it where it is not there yet."""
    made = CACHE / f"{place.resolve().stem}-{digest(place, columns, form)}"
    if not made.is_dir():
        new = made.with_name(f".{made.name}.{uuid4().hex[:8]}")
        try:
            make(new)
            os.replace(new, made)
        except OSError:
            if not made.is_dir():  # else another process was quicker
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return made


def is_kept(place: Path) -> bool:
    """Whether a place is a data set of ``datasets``, or parquet."""
    if place.is_file():
        return place.suffix == PARQUET
    if not place.is_dir():
        return False
    return any((place / name).is_file() for name in MARKS) or any(place.rglob(f"*{PARQUET}"))


def tables_of(place: Path) -> list[Path]:
    """The tables of our own kinds."""
    if place.is_file():
        return [place] if place.suffix in TABLES else []
    return files_of(place, TABLES) if place.is_dir() else []


def digest(place: Path, columns: Columns, form: str) -> str:
    """Other files, columns or forms are read anew."""
    files = (
        [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    )
    told = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    known = json.dumps([str(place.resolve()), told, dict(columns or {}), form])
    return hashlib.sha256(known.encode()).hexdigest()[:12]


# --- Reading ---


def splits_of(
    place: Path, columns: Columns = None, quotes: bool = False, images: str | None = None
) -> dict[str, Rows]:
    """The rows of each split, read as they are asked for; see :func:`as_files`."""
    if place.is_dir() and any((place / name).is_file() for name in MARKS):
        return saved(place)
    tables = tables_of(place)
    if tables and is_kept(place):
        raise UserError(
            f"{place} holds tables ({some_of([file.name for file in tables], 3)}) beside {PARQUET} files: data.root "
            "must be of one kind."
        )
    if tables:
        folder = None if images is None else (place if place.is_dir() else place.parent) / images
        return {file.stem: (None, rows_of(file, columns, quotes, folder)) for file in tables}
    return parquet(place)


def rows_of(
    file: Path, columns: Columns = None, quotes: bool = False, images: Path | None = None
) -> list[Row]:
    """Those of one of our tables, with pictures by paths that hold in another folder too."""
    lines = json_rows(file) if file.suffix == ".jsonl" else table_rows(file, quotes)
    rows: list[Row] = [row for _, row in lines]
    said = {theirs for ours, theirs in (columns or {}).items() if ours in PICTURES}
    for name in rows[0] if rows else ():
        paths = [path for row in rows for path in paths_of(row.get(name))]
        seen = (Path(path).suffix.lower() in IMAGE_ENDINGS for path in paths)
        if not paths or not (name in said or all(seen)):
            continue
        folder = images or picture_folder(file, paths, file.stem)
        for row in rows:
            if isinstance(row.get(name), str):
                row[name] = str((folder / row[name]).resolve())
            elif some := paths_of(row.get(name)):
                row[name] = [str((folder / path).resolve()) for path in some]
    return rows


def paths_of(value: Any) -> list[str]:
    """The texts of a field, which may be a list of them; none where something else is in it."""
    some = value if isinstance(value, list) else [value]
    return some if all(isinstance(one, str) for one in some) else []


def saved(place: Path) -> dict[str, Rows]:
    """Of a folder of ``save_to_disk``."""
    datasets = imported("datasets", place)
    try:
        found = datasets.load_from_disk(str(place))
    except Exception as error:  # of a file that is damaged, any of its readers'
        raise UserError(f"{place} cannot be read: {str(error).splitlines()[0]}.") from None
    parts = found if isinstance(found, dict) else {"all": found}

    def rows(part: Any) -> Iterator[Row]:
        for table in part.with_format("arrow").iter(ROWS):
            yield from table.to_pylist()

    return {name: (part.features, rows(part)) for name, part in parts.items()}


def parquet(place: Path) -> dict[str, Rows]:
    """Of parquet files, whose names, or folders, begin with those of their splits."""
    reader, datasets = imported("pyarrow.parquet", place), imported("datasets", place)
    files = [place] if place.is_file() else sorted(place.rglob(f"*{PARQUET}"))
    parts: dict[str, list[Path]] = {}
    for file in files:
        name = file.parent.name if file.stem.isdigit() else file.stem.partition("-")[0]
        parts.setdefault(name, []).append(file)
    for name, some in parts.items():
        folders = sorted({str(f.parent.parent if f.stem.isdigit() else f.parent) for f in some})
        if len(folders) > 1:
            raise UserError(
                f"{place} has {PARQUET} files of {name} in several folders ({some_of(folders, 3)}), maybe those of "
                "several data sets: data.root must be one of them."
            )

    def rows(some: list[Path]) -> Iterator[Row]:
        for file in some:
            with reader.ParquetFile(file) as opened:
                for batch in opened.iter_batches(ROWS):
                    yield from batch.to_pylist()

    made: dict[str, Rows] = {}
    for name, some in parts.items():
        try:
            schema = reader.read_schema(some[0])
            features = datasets.Features.from_arrow_schema(schema)
        except Exception as error:  # no parquet, or a kind of column that it does not know
            raise UserError(f"{some[0]} cannot be read: {str(error).splitlines()[0]}.") from None
        made[name] = (features, rows(some))
    return made


def imported(name: str, place: Path) -> Any:
    """A package of the extra.

    Raises:
        UserError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"{place} needs {package}: {EXTRA}.") from None


# --- Writing ---


def write(rows: Rows, folder: Path, split: str, columns: Columns, form: str, place: str) -> None:
    """A split as a file of ``form``, with the pictures of its rows in ``pictures/SPLIT``."""
    features, found = rows
    folder.mkdir(parents=True, exist_ok=True)
    put = {"jsonl": as_json, "txt": as_text, "tsv": as_cells}[form]
    header: list[str] = []
    count = 0
    with (folder / f"{split}.{form}").open("w", encoding="utf-8", newline="") as file:
        for number, row in enumerate(found):
            row = unfolded(named(row, features))
            row = picked(row, columns, place)
            row = {
                name: picture(value, folder, split, f"{number:07}-{name}")
                if is_picture(value)
                else value
                for name, value in row.items()
            }
            if not number:
                header = list(row)
            file.write(put(row, header, number == 0, place))
            count += 1
    if not count:
        raise UserError(f"{place} has no row in {split}.")


def as_json(row: Row, header: list[str], first: bool, place: str) -> str:
    return json.dumps(row, ensure_ascii=False, default=str) + "\n"


def as_text(row: Row, header: list[str], first: bool, place: str) -> str:
    text = row.get("text", next(iter(row.values())) if len(row) == 1 else None)
    if text is None and ("text" in row or len(row) == 1):
        return ""  # a row without a text
    if not isinstance(text, str):
        raise UserError(
            f"{place} has no column 'text' for a language model, but {some_of(row)}: data.columns says which, "
            "{text: NAME}."
        )
    return text.rstrip("\n") + "\n"


def as_cells(row: Row, header: list[str], first: bool, place: str) -> str:
    line = "\t".join(" ".join(str(row.get(name) or "").split()) for name in header) + "\n"
    return "\t".join(header) + "\n" + line if first else line


def picked(row: Row, columns: Columns, place: str) -> Row:
    """The columns that were named, by our names.

    Raises:
        UserError: one that there is not.
    """
    if not columns:
        return row
    for ours, theirs in columns.items():
        if theirs not in row:
            raise UserError(
                f"{place} has no column {theirs!r} for data.columns {ours}; there are: {some_of(row)}."
                f"{closest(theirs, row)}"
            )
    return {ours: row[theirs] for ours, theirs in columns.items()}


def named(row: Row, features: Any) -> Row:
    """Classes by their names in place of their numbers."""
    return row if features is None else {n: by_name(v, features.get(n)) for n, v in row.items()}


def by_name(value: Any, feature: Any) -> Any:
    names: Callable[[int], str] | None = getattr(feature, "int2str", None)
    if names is not None:
        return names(value) if isinstance(value, int) and value >= 0 else None
    inner = (
        feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    )
    if inner is not None and isinstance(value, list):
        return [by_name(one, inner) for one in value]
    if isinstance(feature, dict) and isinstance(value, dict):
        return {name: by_name(one, feature.get(name)) for name, one in value.items()}
    return value


def unfolded(row: Row) -> Row:
    """``translation: {de: ..., en: ...}`` as the columns ``de`` and ``en``."""
    inner = row.get("translation")
    return (
        {n: v for n, v in row.items() if n != "translation"} | inner
        if isinstance(inner, dict)
        else row
    )


def is_picture(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"bytes", "path"}


def picture(value: Row, folder: Path, split: str, name: str) -> str:
    """Write a picture as it was kept; its path from the table."""
    if value["bytes"] is None:
        return str(Path(str(value["path"])).resolve())
    return put_picture(value, folder, Path("pictures") / split / name)


def put_picture(value: Row, folder: Path, stem: Path) -> str:
    """Write a picture as it was kept, of bytes or by its path; its path from the folder.

    Args:
        stem: that path without the ending.

    Raises:
        UserError: a file that is not there.
    """
    from PIL import Image

    data = bytes_of(value)
    try:
        with Image.open(io.BytesIO(data)) as opened:
            ending = (opened.format or "png").lower()
    except (OSError, ValueError):
        ending = "png"  # whoever reads it says what is wrong
    place = stem.with_name(f"{stem.name}.{'jpg' if ending == 'jpeg' else ending}")
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_bytes(data)
    return place.as_posix()


def bytes_of(value: Row) -> bytes:
    """What is kept of a picture or a video, in the row or in a file.

    Raises:
        UserError: a file that is not there.
    """
    if value["bytes"] is not None:
        return bytes(value["bytes"])
    try:
        return Path(str(value["path"])).read_bytes()
    except OSError as error:
        raise UserError(f"{value['path']} cannot be read: {error.strerror}.") from None
