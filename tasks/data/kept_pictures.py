"""Pictures with boxes or masks, and clips, as Hugging Face's data sets have them, as the files that the readers here know."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from family.inputs.clips import VIDEO_ENDINGS
from tasks.data.kept import (
    Columns,
    Row,
    Rows,
    bytes_of,
    is_kept,
    is_picture,
    made_once,
    named,
    picked,
    put_picture,
    splits_of,
)
from tasks.data.splits import usual
from tasks.errors import UserError, in_short, some_of

BOXES = ("bbox", "box", "boxes", "bboxes")
CATEGORIES = ("category", "category_id", "categories", "label", "labels")
MASKS = ("mask", "annotation", "label", "labels", "segmentation_mask")
CLIPS = ("video", "clip", "frames")
SPLITS = ("train", "val", "test")


def as_coco(root: str | None, columns: Columns = None) -> Path | None:
    """Where ``SPLIT.json`` in COCO's format is, the pictures beside it; None is the built-in world.

    A row has an ``image``, and ``objects``: lists ``bbox``, each x, y, width, height in pixels, and ``category``, and
    maybe ``area`` and ``iscrowd``; or a list of such objects.

    Args:
        columns: what ``image`` and ``objects`` are called.

    Raises:
        UserError: a column that there is not, or objects of another form.
    """
    return as_pictures(root, columns, "coco", write_coco)


def as_masks(root: str | None, columns: Columns = None) -> Path | None:
    """Where ``SPLIT/images`` and ``SPLIT/masks`` are, of rows with an ``image`` and a ``mask``; see :func:`as_coco`."""
    return as_pictures(root, columns, "masks", write_masks)


def as_clips(root: str | None, columns: Columns = None) -> Path | None:
    """Where ``SPLIT/CLASS/CLIP`` are, of rows with a ``video``, the bytes of a file or a list of frames, and a
    ``label``; see :func:`as_coco`."""
    return as_pictures(root, columns, "clips", write_clips)


def as_pictures(root: str | None, columns: Columns, form: str, write: Any) -> Path | None:
    """See :func:`as_coco`."""
    if root is None or not is_kept(Path(root)):
        if columns:
            raise UserError(
                f"data.columns names columns, but {root or 'the built-in world'} is no data set of datasets and no "
                "parquet: here folders of pictures have none."
            )
        return None if root is None else Path(root)
    place = Path(root)
    return made_once(place, columns, form, lambda new: write(splits_of(place), new, columns, root))


def rows_of(split: str, rows: Rows, columns: Columns, root: str) -> Iterator[tuple[str, Row]]:
    """The rows of a split by our names, each with where it stands."""
    features, found = rows
    for number, row in enumerate(found):
        yield f"{root} row {number} of {split}", picked(named(row, features), columns, root)


def image_of(row: Row, folder: Path, stem: Path, where: str) -> str:
    """The picture of a row, written; its path from the folder."""
    value: Any = row.get("image")
    if not is_picture(value):
        raise UserError(
            f"{where} has no picture in 'image' ({some_of(row)}): data.columns says which, {{image: NAME}}."
        )
    return put_picture(value, folder, stem)


# --- Boxes ---


def write_coco(splits: Mapping[str, Rows], folder: Path, columns: Columns, root: str) -> None:
    """A file for each split, the categories of all in each."""
    content: dict[str, dict[str, Any]] = {}
    known: list[Any] = []
    seen: set[Any] = set()
    folder.mkdir(parents=True, exist_ok=True)
    for split, (features, rows) in splits.items():
        images: list[Row] = []
        found: list[Row] = []
        field = (
            None if features is None else features.get((columns or {}).get("objects", "objects"))
        )
        known = known or names_in(field)
        for number, (where, row) in enumerate(rows_of(split, (features, rows), columns, root)):
            stem = Path("pictures") / split / f"{number:07}"
            images.append({"id": number + 1, "file_name": image_of(row, folder, stem, where)})
            for one in objects_of(row.get("objects"), where):
                found.append({"id": len(found) + 1, "image_id": number + 1, **one})
        seen |= {one["category_id"] for one in found}
        content[split] = {"images": images, "annotations": found}
    classes = known or sorted(seen, key=lambda one: (isinstance(one, str), one))
    ids = {name: name if isinstance(name, int) else i for i, name in enumerate(classes)}
    categories = [{"id": ids[name], "name": str(name)} for name in classes]
    for split, one in content.items():
        for annotation in one["annotations"]:
            annotation["category_id"] = ids[annotation["category_id"]]
        (folder / f"{split}.json").write_text(json.dumps({**one, "categories": categories}))


def names_in(feature: Any) -> list[str]:
    """The names of the classes that a column of objects has, by its features; none where these do not say."""
    inner = getattr(feature, "feature", feature)
    inner = inner[0] if isinstance(inner, list) and inner else inner
    if isinstance(inner, Mapping):
        return next((names for name in CATEGORIES if (names := names_in(inner.get(name)))), [])
    return list(getattr(inner, "names", None) or [])


def objects_of(value: Any, where: str) -> Iterator[Row]:
    """The objects of a row, one by one, in COCO's words.

    Raises:
        UserError: they are of another form.
    """
    need = "it needs bbox and category of each object"
    if isinstance(value, Mapping):
        lists = {name: one for name, one in value.items() if isinstance(one, Sequence)}
        if len({len(one) for one in lists.values()}) > 1:
            raise UserError(f"{where} has objects whose lists are of unequal length: {need}.")
        value = [dict(zip(lists, one, strict=True)) for one in zip(*lists.values(), strict=True)]
    if not isinstance(value, list):
        raise UserError(f"{where} has {in_short(value)} as objects: {need}.")
    for one in value:
        box = next((one[name] for name in BOXES if name in one), None)
        category = next((one[name] for name in CATEGORIES if name in one), None)
        if box is None or not isinstance(category, str | int):
            raise UserError(f"{where} has the object {in_short(one)}: {need}.")
        rest = {name: one[name] for name in ("area", "iscrowd") if one.get(name) is not None}
        yield {"bbox": list(box), "category_id": category, **rest}


# --- Masks ---


def write_masks(splits: Mapping[str, Rows], folder: Path, columns: Columns, root: str) -> None:
    """Folders of pictures and of masks."""
    for split, content in splits.items():
        place = place_of(split, splits)
        for number, (where, row) in enumerate(rows_of(split, content, columns, root)):
            mask = next((row[name] for name in MASKS if is_picture(row.get(name))), None)
            if mask is None:
                raise UserError(
                    f"{where} has no mask ({some_of(row)}): data.columns says which, {{image: NAME, mask: NAME}}."
                )
            image_of(row, folder, place / "images" / f"{number:07}", where)
            put_picture(mask, folder, place / "masks" / f"{number:07}")


def place_of(split: str, splits: Mapping[str, Rows]) -> Path:
    """The folder of a split; one alone that has no usual name is of all."""
    return Path() if len(splits) == 1 and usual(split) not in SPLITS else Path(split)


# --- Clips ---


def write_clips(splits: Mapping[str, Rows], folder: Path, columns: Columns, root: str) -> None:
    """Folders of classes, with a video file or a folder of frames for each row."""
    for split, content in splits.items():
        place = place_of(split, splits)
        for number, (where, row) in enumerate(rows_of(split, content, columns, root)):
            clip = next((row[name] for name in CLIPS if row.get(name)), None)
            if clip is None or not isinstance(row.get("label"), str | int):
                raise UserError(
                    f"{where} needs a video, or its frames, and a label, but has {some_of(row)}: data.columns "
                    "says which, {video: NAME, label: NAME}."
                )
            label = str(row["label"])
            if not label or label[0] == "." or "/" in label:
                raise UserError(
                    f"{where} has the label {label!r}, which can be no folder's name, as a class of clips must."
                )
            put_clip(clip, folder, place / label / f"{number:07}", where)


def put_clip(value: Any, folder: Path, stem: Path, where: str) -> None:
    """Write a clip as it was kept.

    Raises:
        UserError: it is neither a file nor a list of pictures, or a file that is not there.
    """
    if is_picture(value):
        ending = Path(str(value["path"] or "")).suffix.lower()
        place = folder / stem.with_name(
            stem.name + (ending if ending in VIDEO_ENDINGS else VIDEO_ENDINGS[0])
        )
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bytes_of(value))
    elif isinstance(value, list) and all(map(is_picture, value)):
        for number, frame in enumerate(value):
            put_picture(frame, folder, stem / f"{number:06}")
    else:
        raise UserError(
            f"{where} has {in_short(value)} as a clip: it needs a video or a list of pictures."
        )
