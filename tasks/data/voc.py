"""Pascal VOC's annotation files: one XML a picture."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from tasks.data.annotations import Annotations, Rows, pictures
from tasks.data.coco import flag, whole
from tasks.data.images import OnBad
from tasks.data.text_files import read_lines, read_text
from tasks.errors import UserError, closest, some_of

NUMBERS = re.compile(r"(?:[\d.]++[-+]?\s++)++")
"""From the end of a line on, those that stand behind a name."""


def is_voc(root: Path) -> bool:
    """Whether a folder has VOC's layout: ``Annotations/*.xml`` and ``JPEGImages``."""
    return (root / "JPEGImages").is_dir()


def voc_split(root: Path, split: str) -> Path:
    """The file that lists the pictures of a split."""
    return root / "ImageSets" / "Main" / f"{split}.txt"


def voc_files(root: Path) -> list[Path]:
    """All annotations of a folder, in the order of their names."""
    return sorted(file for file in (root / "Annotations").glob("*.xml") if file.name[0] != ".")


def read_voc(
    root: Path, split: str | None, names: Sequence[str] | None = None, on_bad: OnBad = "stop"
) -> Annotations:
    """The pictures that ``ImageSets/Main/SPLIT.txt`` lists, with the boxes of ``Annotations``.

    Boxes count pixels from 1 and include the last, as VOC has it. Objects marked difficult are
    treated as crowds: training leaves them out, evaluation ignores them.

    Args:
        split: None is all pictures that have annotations.
        names: the classes; without them those of the files, sorted.

    Raises:
        UserError: a file that is missing or no XML, an object without a name or a box, a class
            that ``names`` lacks.
    """
    files = voc_files(root)
    if split is not None:
        lines = read_lines(voc_split(root, split))
        files = [named(root / "Annotations", line.strip()) for line in lines]
    documents = [parse(file) for file in files]
    objects = [
        (index, thing)
        for index, document in enumerate(documents)
        for thing in document.iter("object")
    ]

    def where(i: int) -> str:
        index, thing = objects[i]
        return f"{files[index]}: object {thing.findtext('name')!r}"

    classes = [(thing.findtext("name") or "").strip() for _, thing in objects]
    names = sorted(set(classes)) if names is None else names
    labels, boxes = [], []
    for i, name in enumerate(classes):
        if name not in names:
            hint = closest(name, names) or f" Known are: {some_of(names)}."
            raise UserError(f"{where(i)} is of an unknown class.{hint}")
        labels.append(names.index(name))
        box = [objects[i][1].findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
        try:
            boxes.append([float(value) for value in box])  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise UserError(f"{where(i)} has no box: it needs xmin, ymin, xmax, ymax.") from None
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    # Some programs count from 0, against the format: their 0 is no box out of the picture.
    corners[:, :2] = np.where(corners[:, :2] == 0, 0, corners[:, :2] - 1)
    rows = Rows(
        [index for index, _ in objects],
        labels,
        corners,
        [
            flag(t.findtext("difficult"), f"{where(i)}: difficult")
            for i, (_, t) in enumerate(objects)
        ],
        np.zeros(len(objects)),
        where,
    )
    paths = [
        voc_image(root / "JPEGImages", file, document)
        for file, document in zip(files, documents, strict=True)
    ]
    sizes = [
        (whole(d.findtext("size/height"), str(file)), whole(d.findtext("size/width"), str(file)))
        for d, file in zip(documents, files, strict=True)
    ]
    categories = {label + 1: name for label, name in enumerate(names)}
    source = root / "Annotations"
    ids = list(range(1, len(files) + 1))
    found = pictures(source, ids, paths, sizes, rows, on_bad)
    return Annotations(categories, found, root / "JPEGImages", rows.without_area)


def named(folder: Path, line: str) -> Path:
    """The XML of a line of a split: its name may have spaces, and numbers may stand behind it, as the
    flags in the files of single classes."""
    # Backwards, so that a line is walked once, however long.
    flag, more = re.match(r"(?:1-|[01])\s++", line[::-1]), NUMBERS.match(line[::-1])
    plain, bare = (line[: len(line) - (len(one[0]) if one else 0)] for one in (flag, more))
    files = [folder / f"{name}.xml" for name in (line, plain, bare)]
    return next((file for file in files if os.path.isfile(file)), files[1])


def parse(file: Path) -> ElementTree.Element:
    """The root of an XML file.

    Raises:
        UserError: missing, or no XML.
    """
    try:
        return ElementTree.fromstring(read_text(file))
    except ElementTree.ParseError as error:
        raise UserError(f"{file} is not XML: {error}.") from None


def voc_image(folder: Path, file: Path, document: ElementTree.Element) -> Path:
    """The picture of an XML file: of the same name, else the one that the XML names."""
    for ending in (".jpg", ".jpeg", ".png", ".JPG"):
        if os.path.isfile(folder / (file.stem + ending)):
            return folder / (file.stem + ending)
    return folder / (document.findtext("filename") or f"{file.stem}.jpg")
