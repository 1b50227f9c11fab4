"""COCO's annotation files, in the layouts people keep them in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.annotations import Annotations, Rows, pictures
from tasks.data.images import OnBad
from tasks.data.text_files import read_text
from tasks.errors import UserError


def read_coco(
    file: Path, split: str, images: Path | None = None, on_bad: OnBad = "stop"
) -> Annotations:
    """A COCO annotation file.

    Category ids become labels in the order of the ids, whatever gaps they have.

    Args:
        split: whose name the folder of the pictures may have.
        images: that folder, where it is none of the usual ones.

    Raises:
        UserError: no such JSON; a field that is missing; an id or a category name that is given
            twice; an annotation of an unknown picture or category; a size that is no number or
            negative.
    """
    content = read_json(file, ("images", "annotations", "categories"))
    ids = column(file, content, "categories", "id")
    names = [str(name) for name in column(file, content, "categories", "name")]
    for what, values in (("id", ids), ("name", names)):
        unique(f"{file}: the category {what}", values)
    categories = dict(sorted(zip(ids, names, strict=True)))
    label_of = {category: label for label, category in enumerate(categories)}

    image_ids = column(file, content, "images", "id")
    unique(f"{file}: the image id", image_ids)
    index_of = {image: index for index, image in enumerate(image_ids)}
    files = [str(name) for name in column(file, content, "images", "file_name")]
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
        if image not in index_of:
            raise UserError(f"{where(i)} is of image_id={image!r}, which no image has.")
        if category not in label_of:
            raise UserError(f"{where(i)} is of category_id={category!r}, which no category has.")
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            raise UserError(f"{where(i)} has bbox={box}: it needs x, y, width, height.")
        area = annotations[i].get("area") or 0
        if not is_number(area):
            raise UserError(f"{where(i)} has area={area!r}: it needs a number of pixels.")
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    rows = Rows(
        [index_of[image] for image in found],
        [label_of[category] for category in classes],
        corners,
        [bool(a.get("iscrowd")) for a in annotations],
        np.array([a.get("area") or 0 for a in annotations], np.float64),
        where,
    )
    return Annotations(categories, pictures(file, image_ids, paths, sizes, rows, on_bad))


def whole(pixels: Any, where: str) -> int:
    """A side of a picture as a file says it, 0 where it says nothing.

    Raises:
        UserError: what it says is no number.
    """
    try:
        return int(pixels or 0)
    except (TypeError, ValueError):
        raise UserError(f"{where} has a side of {pixels!r} pixels: give a whole number.") from None


def read_json(file: Path, sections: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """A JSON object with lists of these names.

    Raises:
        UserError: missing, no JSON, or without one of the lists.
    """
    try:
        content = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is not JSON: line {error.lineno}, {error.msg}.") from None
    for section in sections:
        if not isinstance(content, dict) or not isinstance(content.get(section), list):
            raise UserError(f"{file} has no list {section!r}, which COCO's format needs.")
    return content


def column(
    file: Path, content: dict[str, list[dict[str, Any]]], section: str, name: str
) -> list[Any]:
    """A field of every entry of a list.

    Raises:
        UserError: one lacks it, or an id is no whole number.
    """
    values = [entry.get(name) if isinstance(entry, dict) else None for entry in content[section]]
    if None in values:
        raise UserError(f"{file}: {section}[{values.index(None)}] has no {name!r}.")
    if name.endswith("id"):
        for i, value in enumerate(values):
            if not isinstance(value, int):
                raise UserError(f"{file}: {section}[{i}] has {name}={value!r}: ids are integers.")
    return values


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def unique(what: str, values: Sequence[Any]) -> None:
    """Refuse a value that is there twice."""
    if len(set(values)) < len(values):
        value = next(value for value, count in Counter(values).items() if count > 1)
        raise UserError(f"{what} {value!r} is given twice: each must be its own.")


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


def find_folder(file: Path, split: str, kind: str, names: Sequence[str]) -> Path:
    """The folder that holds the pictures of an annotation file, beside the file or one above.

    Raises:
        UserError: none of the usual folders has any of the first of them.
    """
    year = file.stem.removeprefix(f"{kind}_")
    folders = [
        root / name
        for root in (file.parent, file.parent.parent)
        for name in (year, split, f"images/{year}", f"images/{split}", "images", ".")
    ]
    for folder in folders:
        if any((folder / name).is_file() for name in names[:20]):
            return folder
    looked = ", ".join(dict.fromkeys(str(folder) for folder in folders if folder.is_dir()))
    raise UserError(
        f"the pictures of {file} ({', '.join(names[:3])} ...) are in none of {looked}: "
        "data.images names their folder."
    )
