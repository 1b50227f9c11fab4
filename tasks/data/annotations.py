"""Boxes of pictures, checked before training starts: what the readers of all formats share."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from family.inputs.pictures import WHITE, Colour
from tasks.data import shapes
from tasks.data.images import OnBad, kept, read_image, size_of
from tasks.errors import UserError

log = logging.getLogger(__name__)
Size = tuple[int, int]


@dataclass(frozen=True)
class Picture:
    """What is known of one picture.

    Args:
        image_id: of the annotation file.
        path: of the file, or a name where there is none.
        size: ``(height, width)`` in pixels.
        boxes: ``(n, 4)`` float64: x0, y0, x1, y1 in pixels, inside the picture.
        labels: ``(n,)`` int64, 0 to classes - 1.
        iscrowd: ``(n,)`` bool: a region that evaluation ignores and training leaves out.
        areas: ``(n,)`` in pixels, by which evaluation tells small from large.
    """

    image_id: int
    path: Path
    size: Size
    boxes: np.ndarray
    labels: np.ndarray
    iscrowd: np.ndarray
    areas: np.ndarray


@dataclass(frozen=True)
class Annotations:
    """The pictures of a split.

    Args:
        categories: ids and names, in the order of the labels.
        folder: of all pictures.
        without_area: what is to be said of boxes that were left out, in a sentence a file.
    """

    categories: dict[int, str]
    pictures: Sequence[Picture]
    folder: Path
    without_area: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.pictures)

    def picture(self, index: int) -> Picture:
        return self.pictures[index]

    @property
    def names(self) -> list[str]:
        """Of each picture its path below the folder of all."""
        paths = (os.path.relpath(picture.path, self.folder) for picture in self.pictures)
        return [Path(path).as_posix() for path in paths]

    def part(self, indices: Iterable[int]) -> Annotations:
        """Some of the pictures."""
        return dataclasses.replace(self, pictures=[self.pictures[i] for i in indices])

    def image(self, index: int, background: Colour = WHITE) -> Image.Image:
        return read_image(self.pictures[index].path, background=background)


class ShapePictures:
    """The built-in world as annotated pictures, drawn when they are asked for."""

    def __init__(self, count: int, image_size: int, seed: int, split: str) -> None:
        self.count, self.image_size, self.seed, self.split = count, image_size, seed, split
        self.categories = {label + 1: name for label, name in enumerate(shapes.CLASSES)}

    def __len__(self) -> int:
        return self.count

    def picture(self, index: int) -> Picture:
        scene = shapes.sample(index, self.seed, self.split)
        boxes, labels = shapes.boxes(scene, self.image_size)
        boxes = boxes.astype(np.float64)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        size = self.image_size, self.image_size
        path = Path(f"shapes-{self.split}-{index}.png")
        nothing = np.zeros(len(labels), bool)
        return Picture(index + 1, path, size, boxes, labels, nothing, areas)

    def image(self, index: int, background: Colour = WHITE) -> Image.Image:
        return shapes.draw(shapes.sample(index, self.seed, self.split), self.image_size)


@dataclass
class Rows:
    """Boxes as they stand in a file, one entry each: not yet checked."""

    image: list[int]
    """Index of the picture."""
    label: list[int]
    boxes: np.ndarray
    iscrowd: list[bool]
    areas: np.ndarray
    """0 where the file has none."""
    name: Callable[[int], str]
    """Where entry i stands, for messages."""
    without_area: list[str] = dataclasses.field(default_factory=list)
    """What :func:`pictures` says of boxes that it leaves out."""


def pictures(
    source: Path,
    ids: Sequence[int],
    paths: Sequence[Path],
    sizes: Sequence[Size],
    rows: Rows,
    on_bad: OnBad,
) -> list[Picture]:
    """One entry a picture, its boxes cut at the picture's edges.

    A box that reaches out of the picture is cut; one without area, or wholly outside, is left
    out; a warning says how many.

    Raises:
        UserError: a coordinate that is no number, a negative width or height; with "stop" a
            picture that is missing, unreadable, or of another size than the annotations say.
    """
    for i in np.flatnonzero(~np.isfinite(rows.boxes).all(axis=1))[:1]:
        raise UserError(f"{rows.name(i)} has a coordinate that is no finite number.")
    for i in np.flatnonzero((rows.boxes[:, 2:] < rows.boxes[:, :2]).any(1))[:1]:
        width, height = rows.boxes[i, 2:] - rows.boxes[i, :2]
        raise UserError(f"{rows.name(i)} has a negative size: {width:g} x {height:g}.")
    known = measure(paths, sizes, on_bad)
    image = np.array(rows.image, np.int64)
    edges = np.array([known.get(i, (0, 0)) for i in rows.image], np.float64).reshape(-1, 2)
    edges = edges[:, [1, 0, 1, 0]]
    boxes = rows.boxes.clip(0, edges)
    there = edges[:, 0] > 0
    keep = np.asarray((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    moved = np.asarray((np.abs(boxes - rows.boxes) > 1e-3).any(axis=1))
    warn(source, rows, ~keep & there, int((keep & moved).sum()))

    box_areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    areas = np.where(rows.areas > 0, np.minimum(rows.areas, box_areas), box_areas)
    labels, iscrowd = np.array(rows.label, np.int64), np.array(rows.iscrowd, bool)
    order = np.argsort(image, kind="stable")
    order = order[keep[order]]
    cuts = np.searchsorted(image[order], np.arange(1, len(ids)))
    parts = np.split(order, cuts) if ids else []
    return [
        Picture(ids[i], paths[i], known[i], boxes[part], labels[part], iscrowd[part], areas[part])
        for i, part in enumerate(parts)
        if i in known
    ]


def warn(source: Path, rows: Rows, dropped: np.ndarray, cut: int) -> None:
    """Say how many boxes were cut or left out."""
    if cut:
        corners = source.suffix == ".json" and cut > len(dropped) / 2
        hint = " Are they corners? COCO has x, y, width, height." if corners else ""
        log.warning(
            "%s: %d of %d boxes reach out of their pictures and were cut at the edge.%s",
            source,
            cut,
            len(dropped),
            hint,
        )
    for i in np.flatnonzero(dropped)[:1]:
        rows.without_area.append(
            f"{source}: {dropped.sum()} of {len(dropped)} boxes have no area inside their pictures and were "
            f"left out; the first: {rows.name(i)}."
        )
        log.warning("%s", rows.without_area[-1])


def measure(paths: Sequence[Path], sizes: Sequence[Size], on_bad: OnBad) -> dict[int, Size]:
    """The size of each picture that is there, by its index; from the headers alone.

    Args:
        sizes: as the annotations say, 0 where they do not.

    Raises:
        UserError: "stop" and a picture that is missing, unreadable, or of another size.
    """

    def look(path: Path, said: Size) -> tuple[Size, str | None]:
        try:
            size = size_of(path)
        except UserError as error:
            return said, str(error)
        if min(said) > 0 and said != size:
            return said, (
                f"{path} has {size[1]} x {size[0]} pixels (held upright), but its annotations say "
                f"{said[1]} x {said[0]}."
            )
        return size, None

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(look, paths, sizes))
    return {index: found[index][0] for index in kept([mistake for _, mistake in found], on_bad)}


def ground_truth(categories: dict[int, str], found: Sequence[Picture]) -> dict[str, Any]:
    """The pictures in COCO's format, as evaluation reads it; its ids of categories are the file's.

    Annotations are numbered from 1: COCO's evaluation takes the id 0 for "not matched".
    """
    ids = list(categories)
    annotations: list[dict[str, Any]] = []
    for picture in found:
        for box, label, crowd, area in zip(
            picture.boxes.tolist(),
            picture.labels.tolist(),
            picture.iscrowd.tolist(),
            picture.areas.tolist(),
            strict=True,
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": picture.image_id,
                    "category_id": ids[label],
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "area": area,
                    "iscrowd": int(crowd),
                }
            )
    images = [
        {"id": p.image_id, "file_name": p.path.name, "height": p.size[0], "width": p.size[1]}
        for p in found
    ]
    named = [{"id": category, "name": name} for category, name in categories.items()]
    return {"info": {}, "images": images, "annotations": annotations, "categories": named}
