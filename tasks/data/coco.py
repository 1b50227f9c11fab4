"""COCO's annotation files, in the layouts people keep them in."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.annotations import Annotations, Rows, pictures
from tasks.data.images import OnBad
from tasks.data.splits import names_of, usual
from tasks.data.text_files import parse_json, read_text
from tasks.errors import UserError, in_short

log = logging.getLogger(__name__)
FLAGS = {"1": True, "1.0": True, "true": True, "yes": True}
FLAGS |= {"0": False, "0.0": False, "false": False, "no": False, "": False}


def read_coco(
    file: Path,
    split: str,
    images: Path | None = None,
    on_bad: OnBad = "stop",
    known: Collection[int] = (),
) -> Annotations:
    """A COCO annotation file.

    Category ids become labels in the order of the ids, whatever gaps they have. A category that others
    name as their ``supercategory`` and that has no box of its own is no class, as the root that exports
    put beside its children. Ids of pictures may be strings: those that are whole numbers count as such,
    others are numbered from 1 in the order of the file.

    Args:
        split: whose name the folder of the pictures may have.
        images: that folder, where it is none of the usual ones.
        known: ids of categories that are classes in any case.

    Raises:
        UserError: no such JSON; a field that is missing; an id or a category name that is given
            twice; an annotation of an unknown picture or category; a size that is no number or
            negative; an ``iscrowd`` that is neither yes nor no.
    """
    content = read_json(file, ("images", "annotations", "categories"))
    categories = read_categories(file, content, known)
    label_of = {category: label for label, category in enumerate(categories)}

    # By their text: some write strings here and numbers there.
    unique(f"{file}: the image id", column(file, content, "images", "id"))
    given = [str(image) for image in column(file, content, "images", "id")]
    index_of = {image: index for index, image in enumerate(given)}
    image_ids = whole_numbers(given)
    files = column(file, content, "images", "file_name")
    if not files:
        raise UserError(f"{file} has no picture: its list 'images' is empty.")
    folder = images or find_folder(file, split, "instances", files)
    paths = [folder / name for name in files]
    sizes = [
        (whole(i.get("height"), f"{file}: {name}"), whole(i.get("width"), f"{file}: {name}"))
        for i, name in zip(content["images"], files, strict=True)
    ]

    annotations = content["annotations"]

    def where(i: int) -> str:
        return f"{file}: annotation {annotations[i].get('id', f'number {i}')}"

    found = column(file, content, "annotations", "image_id")
    classes = column(file, content, "annotations", "category_id")
    boxes = column(file, content, "annotations", "bbox")
    for i, (image, category, box) in enumerate(zip(found, classes, boxes, strict=True)):
        if str(image) not in index_of:
            raise UserError(f"{where(i)} is of image_id={in_short(image)}, which no image has.")
        if category not in label_of:
            raise UserError(
                f"{where(i)} is of category_id={in_short(category)}, which no category has."
            )
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            raise UserError(f"{where(i)} has bbox={in_short(box)}: it needs x, y, width, height.")
        area = annotations[i].get("area") or 0
        if not is_number(area):
            raise UserError(f"{where(i)} has area={in_short(area)}: it needs a number of pixels.")
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    rows = Rows(
        [index_of[str(image)] for image in found],
        [label_of[category] for category in classes],
        corners,
        [flag(a.get("iscrowd"), f"{where(i)}: iscrowd") for i, a in enumerate(annotations)],
        np.array([a.get("area") or 0 for a in annotations], np.float64),
        where,
    )
    found = pictures(file, image_ids, paths, sizes, rows, on_bad)
    return Annotations(categories, found, folder, rows.without_area)


def read_categories(
    file: Path, content: dict[str, list[dict[str, Any]]], known: Collection[int]
) -> dict[int, str]:
    """Ids and names of the classes, in the order of the ids; see :func:`read_coco`."""
    ids = column(file, content, "categories", "id")
    unique(f"{file}: the category id", ids)
    names = [str(name) for name in column(file, content, "categories", "name")]
    every = dict(sorted(zip(ids, names, strict=True)))
    used = {*column(file, content, "annotations", "category_id"), *known}
    above = [(entry["id"], entry.get("supercategory")) for entry in content["categories"]]
    kept = {
        category: name
        for category, name in every.items()
        if category in used or all(name != over or category == i for i, over in above)
    }
    kept = kept or every
    unique(f"{file}: the category name", list(kept.values()))
    for category in every.keys() - kept.keys():
        message = (
            "%s: category %d, %s, is the supercategory of others and has no box: it is no class."
        )
        log.warning(message, file, category, every[category])
    return kept


def whole_numbers(ids: Sequence[str]) -> list[int]:
    """Ids as whole numbers: their own, or else from 1."""
    try:
        numbers = [int(value) for value in ids]
    except ValueError:
        numbers = []
    good = len(set(numbers)) == len(ids) and all(abs(number) < 1 << 63 for number in numbers)
    return numbers if good else list(range(1, len(ids) + 1))


def flag(value: Any, where: str) -> bool:
    """A yes or no as files have it, number, word or text; nothing is no.

    Raises:
        UserError: something else.
    """
    said = str(value or 0).strip().lower()
    if said not in FLAGS:
        raise UserError(f"{where} is {in_short(value)}: give 0 or 1.")
    return FLAGS[said]


def whole(pixels: Any, where: str) -> int:
    """A side of a picture as a file says it, 0 where it says nothing.

    Raises:
        UserError: what it says is no number.
    """
    try:
        return int(pixels or 0)
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{where} has a side of {in_short(pixels)} pixels: give a whole number."
        ) from None


def read_json(file: Path, sections: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """A JSON object with lists of these names.

    Raises:
        UserError: missing, no JSON, or without one of the lists.
    """
    content = parse_json(read_text(file), str(file), lines=True)
    for section in sections:
        if not isinstance(content, dict) or not isinstance(content.get(section), list):
            raise UserError(f"{file} has no list {section!r}, which COCO's format needs.")
    return content


def column(
    file: Path, content: dict[str, list[dict[str, Any]]], section: str, name: str
) -> list[Any]:
    """A field of every entry of a list.

    Raises:
        UserError: one lacks it, or an id is no whole number (of a picture it may be a string).
    """
    values = [entry.get(name) if isinstance(entry, dict) else None for entry in content[section]]
    if None in values:
        raise UserError(f"{file}: {section}[{values.index(None)}] has no {name!r}.")
    if name == "file_name":
        for i, value in enumerate(values):
            if not isinstance(value, str):
                raise UserError(
                    f"{file}: {section}[{i}] has {name}={in_short(value)}: give a text."
                )
    if name.endswith("id"):
        of_picture = section == "images" or name == "image_id"
        for i, value in enumerate(values):
            if not isinstance(value, (int, str) if of_picture else int):
                kinds = "integers or strings" if of_picture else "integers"
                raise UserError(
                    f"{file}: {section}[{i}] has {name}={in_short(value)}: ids are {kinds}."
                )
    return values


def is_number(value: Any) -> bool:
    """Whether it may stand in an array."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 63)


def unique(what: str, values: Sequence[Any]) -> None:
    """Refuse a value that is there twice, if once as a number and once as text."""
    counts = Counter(map(str, values))
    if len(counts) < len(values):
        value = next(value for value in values if counts[str(value)] > 1)
        raise UserError(f"{what} {in_short(value)} is given twice: each must be its own.")


def find_coco(root: Path, split: str, kind: str = "instances") -> Path | None:
    """The annotation file of a split in the layouts people use; None where there is none.

    ``annotations/KIND_SPLIT.json`` (``KIND_`` may be missing; COCO's own ``train2017`` is found as
    ``train``), ``SPLIT.json``, ``SPLIT/_annotations.coco.json``. ``split`` may also be the path of
    the file.

    Raises:
        UserError: several files could be meant.
    """
    if split.endswith(".json"):
        return root / split
    for pattern in (f"{kind}_{split}", split, f"{kind}_{split}[0-9]*", f"{split}[0-9]*"):
        for folder in ("annotations", ""):
            found = sorted((root / folder).glob(f"{pattern}.json"))
            if len(found) > 1:
                listed = ", ".join(path.name for path in found)
                raise UserError(f"{root / folder} has several files for {split!r}: {listed}.")
            if found:
                return found[0]
    exported = root / split / "_annotations.coco.json"
    return exported if exported.exists() else None


def find_folder(file: Path, split: str, kind: str, files: Sequence[str]) -> Path:
    """The folder that holds the pictures of an annotation file, beside the file or one above.

    Raises:
        UserError: none of the usual folders has any of the first of them.
    """
    # Which name the annotations have need not be the one of the folder.
    names = dict.fromkeys((file.stem.removeprefix(f"{kind}_"), split, *names_of(usual(split))))
    folders = [
        root / name
        for root in (file.parent, file.parent.parent)
        for name in (*names, *(f"images/{name}" for name in names), "images", ".")
    ]
    for folder in folders:
        if any(os.path.isfile(folder / name) for name in files[:20]):
            return folder
    looked = ", ".join(dict.fromkeys(str(folder) for folder in folders if folder.is_dir()))
    raise UserError(
        f"the pictures of {file} ({', '.join(files[:3])} ...) are in none of {looked}: "
        "data.images names their folder."
    )
