"""Pictures with sentences: tables, COCO's captions, and tar files of pairs (webdataset)."""

from __future__ import annotations

import csv
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tasks.data.coco import column, find_coco, find_folder, read_json, unique
from tasks.data.splits import names_of, usual
from tasks.data.tars import TAR_ERRORS, members, tar_reason
from tasks.data.text_files import MARK, parse_json, quote_error, read_text, refuse_no_file
from tasks.errors import UserError, closest, in_short, some_of

TABLES = (".tsv", ".csv", ".jsonl")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
IMAGE_COLUMNS = ("file", "file_name", "filename", "filepath", "image", "image_path", "path")
CAPTION_COLUMNS = ("caption", "text", "title", "sentence", "description")


@dataclass(frozen=True)
class Caption:
    """A picture and a sentence about it.

    Args:
        file: the picture's name in its table or tar.
        text: the sentence.
        key: what rows have in common that one split must keep together.
        where: place of the sentence, for messages.
        path: of the picture, or of the tar that holds it.
        span: first byte and length inside the tar.
        begin: what the sentence begins with and a model is given: its column, where it has a choice.
    """

    file: str
    text: str
    key: str
    where: str
    path: Path
    span: tuple[int, int] | None = None
    begin: str = ""

    def name(self) -> str:
        """What the picture is called: with its tar, since two of them may have members of one name."""
        return self.file if self.span is None else f"{self.path.name}/{self.file}"

    def source(self) -> Path | bytes:
        """The picture as a file, or its bytes."""
        if self.span is None:
            return self.path
        with self.path.open("rb") as tar:
            tar.seek(self.span[0])
            return tar.read(self.span[1])


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read; None finds them by their usual names.

    Args:
        caption: one, or several, each with a sentence about the picture.
        quotes: fields of a ``.tsv`` may stand in quotes.
        told: of several the sentences begin with their column, ``de: ein roter Kreis``.
    """

    image: str | None = None
    caption: str | tuple[str, ...] | None = None
    split: str | None = None
    quotes: bool = False
    told: bool = False


def find_sources(root: Path, split: str) -> list[Path]:
    """The files of a split, or none.

    ``SPLIT.tsv``, ``.csv`` or ``.jsonl``; ``SPLIT/metadata.csv`` or ``.jsonl``; COCO's
    ``annotations/captions_SPLIT.json``; ``SPLIT*.tar`` or ``SPLIT/*.tar``. ``split`` may also be
    the name of a file; in names of tar files ``{0000..0099}`` and ``{a,b}`` stand for many.

    Raises:
        UserError: a file of that name does not exist.
    """
    if split.endswith((*TABLES, ".json", ".tar")):
        found = [root / name for name in expand(split)]
        for path in found:
            if not path.is_file():
                siblings = [p.name for p in path.parent.glob("*")]
                raise UserError(f"{path} does not exist.{closest(path.name, siblings)}")
        return found
    names = [f"{split}{ending}" for ending in TABLES] + [f"{split}/metadata{e}" for e in TABLES]
    for name in names:
        if os.path.isfile(root / name):
            return [root / name]
    file = find_coco(root, split, "captions")
    if file is not None:
        return [file]
    shards = sorted(root.glob(f"{split}*.tar"))
    ours = [path for path in shards if not another(path.stem, split)]
    return ours or sorted((root / split).glob("*.tar"))


def another(stem: str, split: str) -> bool:
    """Whether a file that begins as a split's is of a longer name of the same: ``valid-00`` for val."""
    return any(stem.startswith(name) for name in names_of(usual(split)) if len(name) > len(split))


def find_common(root: Path) -> list[Path]:
    """The files of a folder that has no splits: ``captions.*``, its only table, all its tars.

    Raises:
        UserError: there is none, or more tables than one.
    """
    found = find_sources(root, "captions")
    if found:
        return found
    # What is for validation or test alone is nothing to train on.
    held = [path for path in root.glob("*") if usual(path.stem.split("-")[0]) in ("val", "test")]
    tables = sorted(p for p in root.glob("*") if p.suffix in TABLES and p not in held)
    if len(tables) > 1:
        listed = ", ".join(path.name for path in tables)
        raise UserError(f"{root} has several tables ({listed}): data.root may name one of them.")
    found = tables or sorted(p for p in root.glob("*.tar") if p not in held)
    if not found:
        raise UserError(
            f"{root} has neither a table of captions (captions.tsv, .csv, .jsonl), nor COCO's "
            "captions (annotations/captions_train.json), nor tar files."
        )
    return found


def expand(pattern: str) -> list[str]:
    """``a-{00..02}.tar`` to a-00.tar, a-01.tar, a-02.tar; ``{x,y}`` to each of its words."""
    parts: list[list[str]] = []
    for i, part in enumerate(re.split(r"\{([^{}]*)\}", pattern)):
        numbers = re.fullmatch(r"(\d+)\.\.(\d+)", part)
        if i % 2 == 0:
            parts.append([part])
        elif numbers:
            first, last = numbers.groups()
            parts.append([f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)])
        else:
            parts.append(part.split(","))
    return ["".join(chosen) for chosen in product(*parts)]


def read_captions(
    files: Sequence[Path], columns: Columns, images: Path | None, split: str
) -> list[Caption]:
    """All rows of the files of a split, in their order.

    Args:
        images: the folder of the pictures, where the usual places are wrong.

    Raises:
        UserError: a file that cannot be read, a column that is missing, a tar that is compressed.
    """
    rows: list[Caption] = []
    for file in files:
        if file.suffix == ".tar":
            rows += read_tar(file)
        elif file.suffix == ".json":
            rows += read_coco_captions(file, images, split)
        else:
            rows += read_table(file, columns, images, split)
    if not rows:
        raise UserError(f"{files[0]} holds no picture with a caption.")
    return rows


# --- Tables ----------------------------------------------------------------------------------


def read_table(file: Path, columns: Columns, images: Path | None, split: str) -> list[Caption]:
    """A TSV, CSV or JSON-lines table, whose first line names the columns."""
    rows = list(table_rows(file, columns.quotes))
    if not rows:
        raise UserError(f"{file} has no line below the names of the columns.")
    names = list(rows[0][1])
    image = choose(file, names, columns.image, IMAGE_COLUMNS, "image_column")
    wanted = columns.caption if isinstance(columns.caption, tuple) else (columns.caption,)
    captions = [choose(file, names, c, CAPTION_COLUMNS, "caption_column") for c in wanted]
    key = image if columns.split is None else columns.split
    choose(file, names, key, (), "split_column")
    for line, row in rows:
        if not row.get(image):
            raise UserError(f"{file} line {line} names no picture in the column {in_short(image)}.")
    folder = images or picture_folder(file, [row[image] for _, row in rows], split)
    found = []
    for line, row in rows:
        for caption in captions:
            text, begin = row.get(caption, "").strip(), f"{caption}:" if columns.told else ""
            found.append(
                Caption(
                    row[image],
                    f"{begin} {text}" if begin and text else text,
                    row.get(key, ""),
                    f"{file} line {line}",
                    folder / row[image],
                    begin=begin,
                )
            )
    return found


def picture_folder(file: Path, names: Sequence[str], split: str) -> Path:
    """Where the pictures are that a table names: beside it, in ``images`` or in a folder of its split."""
    folders = [file.parent, *(file.parent / name for name in ("images", split, *names_of(split)))]
    there = (f for f in folders if any(os.path.isfile(f / name) for name in names[:20]))
    return next(there, folders[0])


def table_rows(file: Path, quotes: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of each row.

    A ``.csv`` may be separated by ``,``, ``;`` (as spreadsheets write where a comma is in numbers) or
    tabs: by what makes most columns of its first line, or what a first line ``sep=;`` says.

    Args:
        quotes: also of a ``.tsv``, see :func:`~tasks.data.text_files.tab_rows`.
    """
    if file.suffix == ".jsonl":
        for number, row in json_rows(file):
            yield number, {name: as_field(one) for name, one in row.items()}
        return
    rows = table_fields(file, quotes)
    line, names = next(rows, (0, []))
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise UserError(
            f"{file} line {line} names the column {twice[0]} twice: rename one of them."
        )
    for place, fields in rows:
        if len(fields) != len(names):
            raise UserError(
                f"{file} line {place} has {len(fields)} columns, but the first line names "
                f"{len(names)}: {some_of(names)}."
            )
        yield place, dict(zip(names, fields, strict=True))


def as_field(value: Any) -> str:
    """A value of a ``.jsonl`` as it would stand in a table; a list or an object as JSON."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def table_fields(file: Path, quotes: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row of a ``.tsv`` or ``.csv``, the first included; as
    :func:`table_rows`."""
    lines = read_text(file).split("\n")
    # A quote in a .csv encloses a field, in a .tsv where we are told so.
    tabs, first = file.suffix == ".tsv", 0
    said = None if tabs else re.fullmatch(r"sep=(.)\r?", lines[0])
    if said:
        lines, first = lines[1:] or [""], 1
    separators = "\t" if tabs else said[1] if said else ",\t;"
    if said and said[1] in '"\r':
        raise UserError(f"{file} line 1 says {said[0]!r}, which is no separator.")
    reader = csv.reader(
        (f"{line}\n" for line in lines),
        delimiter=max(separators, key=lambda one: columns(lines, one)),
        quoting=csv.QUOTE_NONE if tabs and not quotes else csv.QUOTE_MINIMAL,
        strict=tabs and quotes,
    )
    yield from ((first + reader.line_num, row) for row in csv_rows(file, reader))


def columns(lines: Sequence[str], separator: str) -> int:
    """How many the first row has by a separator, where quotes enclose fields."""
    rows = csv.reader((f"{line}\n" for line in lines), delimiter=separator)
    try:
        return len(next(filter(None, rows), []))
    except csv.Error:  # said where all rows are read
        return 0


def csv_rows(file: Path, reader: Any) -> Iterator[list[str]]:
    """Rows that are not blank."""
    try:
        yield from filter(None, reader)
    except csv.Error as error:
        raise quote_error(file, reader.line_num, error) from None


def json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line of a ``.jsonl`` that is not empty, values as they are.

    Raises:
        UserError: one is no JSON object.
    """
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        row = parse_json(line, f"{file} line {number}")
        if not isinstance(row, dict):
            raise UserError(f"{file} line {number} is no JSON object.")
        yield number, row


def choose(
    file: Path, names: Sequence[str], wanted: str | None, usual: Sequence[str], option: str
) -> str:
    """The column that an option names, else the first with a usual name.

    Raises:
        UserError: there is no such column.
    """
    listed = some_of(names)
    if wanted is not None:
        if wanted not in names:
            raise UserError(f"{file} has no column {option}={wanted!r}, only: {listed}.")
        return wanted
    for name in usual:
        if name in names:
            return name
    raise UserError(f"{file} has the columns {listed}: data.{option} must name the one to read.")


# --- COCO ------------------------------------------------------------------------------------


def read_coco_captions(file: Path, images: Path | None, split: str) -> list[Caption]:
    """COCO's captions: several sentences a picture, one row each."""
    content = read_json(file, ("images", "annotations"))
    ids, names = column(file, content, "images", "id"), column(file, content, "images", "file_name")
    unique(f"{file}: the image id", ids)
    folder = images or find_folder(file, split, "captions", names)
    name_of = dict(zip(map(str, ids), names, strict=True))
    found = column(file, content, "annotations", "image_id")
    texts = column(file, content, "annotations", "caption")
    rows = []
    for i, (image, text) in enumerate(zip(found, texts, strict=True)):
        if str(image) not in name_of:
            raise UserError(f"{file}: annotations[{i}] is of image_id={image}, which no image has.")
        name = name_of[str(image)]
        where = f"{file}: annotations[{i}]"
        rows.append(Caption(name, str(text).strip(), name, where, folder / name))
    return rows


# --- Tar files -------------------------------------------------------------------------------


def read_tar(file: Path) -> list[Caption]:
    """Pairs of a webdataset shard: ``KEY.jpg`` with ``KEY.txt``, or ``KEY.json`` with "caption".

    Only the places of the pictures are read, so that examples can be drawn in any order.
    """
    refuse_no_file(file)
    pictures: dict[str, tarfile.TarInfo] = {}
    texts: dict[str, str] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in members(tar, file):
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key, ending = f"{folder}/{stem}" if folder else stem, f".{ending.lower()}"
                if not member.isfile():
                    continue
                if ending in PICTURES:
                    other = pictures.setdefault(key, member)
                    if other.name != member.name:
                        raise UserError(
                            f"{file} has {other.name} and {member.name}: a key has one picture."
                        )
                    pictures[key] = member  # of two of one name the later counts, as tar has it
                elif ending == ".txt" or (ending == ".json" and key not in texts):
                    content = tar.extractfile(member)
                    assert content is not None
                    texts[key] = tar_text(f"{file}/{member.name}", content.read(), ending)
    except TAR_ERRORS as error:
        raise UserError(f"{file} is not an uncompressed tar file: {tar_reason(error)}.") from None
    rows = []
    for key, member in pictures.items():
        span = member.offset_data, member.size
        rows.append(Caption(member.name, texts.get(key, ""), key, f"{file}/{key}", file, span))
    return rows


def tar_text(where: str, content: bytes, ending: str) -> str:
    """The sentence of a ``.txt`` or ``.json`` member."""
    try:
        text = content.decode("utf-8").removeprefix(MARK)
        if ending == ".json":
            text = str(parse_json(text, where).get("caption") or "")
        return text.strip()
    except (ValueError, AttributeError):
        raise UserError(f"{where} is neither UTF-8 text nor a JSON object.") from None
