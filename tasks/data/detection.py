"""Pictures with boxes, for detection."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from family.inputs.preprocess import Preprocess
from tasks.data.annotation_files import AnnotationFiles
from tasks.data.annotations import Annotations, ShapePictures, ground_truth
from tasks.data.base import FamilyData
from tasks.data.images import OnBad, check_scale, kept, picture_size, read_image, read_picks
from tasks.data.kept_pictures import as_coco
from tasks.data.sampling import ExampleBatches, Pick, batch_loader, seeded
from tasks.data.splits import divide_pictures, pattern, shares_of
from tasks.data.stored import Stored
from tasks.errors import UserError, at_least, between

Batch = dict[str, Any]
VISIBLE = 0.25
"""A box stays after a cut if at least this share of it is still in the picture."""


class DetectionData(FamilyData):
    """Pictures with boxes and classes.

    A batch:

    - ``pixel_values (batch, 3, height, width)`` float32: normalised; zeros at the right and the bottom
      of pictures smaller than the largest;
    - ``pixel_mask (batch, height, width)`` bool: True = picture;
    - ``targets``: list of a dictionary each, ``labels (objects,)`` int64, ``boxes (objects, 4)``
      float32 as cx, cy, w, h in 0..1 of the picture without padding, ``image_id`` int, ``size``,
      height and width of the original picture, and ``file``, its name.

    Args:
        root: a folder in COCO's format (``annotations/instances_SPLIT.json`` or ``SPLIT.json``,
            the pictures in ``SPLIT/``, ``images/`` or beside it) or in Pascal VOC's
            (``Annotations/*.xml``, ``JPEGImages/``, ``ImageSets/Main/SPLIT.txt``). Where there are no
            splits (one annotation file in the folder, or named by ``root``; no ``ImageSets``), all
            pictures are divided. A data set of Hugging Face's ``datasets`` on disk, or parquet, has the columns
            ``image`` and ``objects`` (see :func:`~tasks.data.kept_pictures.as_coco`). None is the built-in world
            of shapes.
        train, val, test: the splits' names, or annotation files relative to ``root``; "val" is also
            found as valid, validation or dev.
        images: the folder of COCO's pictures relative to ``root``, where it is none of the usual
            ones; ``{split}`` in it stands for the split's name.
        val_fraction, test_fraction, split_seed, group: how splits that are not there are held out of
            "train", as those of :class:`~tasks.data.image_classification.ImageClassificationData`,
            by the names of the pictures; classes have no say.
        image_size: ``(height, width)`` into which pictures are fitted; their shape is kept.
        scale: training fits each picture into a random share of ``image_size`` between these.
        augment: flip, cut and recolour the pictures of training.
        vertical_flip: flip upside down too, for pictures that have no above and below.
        crop: the share of pictures of which training sees a part: half of each side at least.
        colour: how strongly brightness, contrast, saturation and hue change: 0 to 1.
        on_bad: "stop" at a picture that cannot be read, or "skip" it with a warning.
        examples: pictures of the built-in world.
        columns: what ``image`` and ``objects`` of a data set are called: ``{objects: faces}``.
    """

    task = "Detection"
    decided = ("image_size",)

    def __init__(
        self,
        root: str | None = None,
        train: str = "train",
        val: str = "val",
        test: str = "test",
        images: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int | None = None,
        group: str | None = None,
        image_size: tuple[int, int] = (256, 256),
        scale: tuple[float, float] = (0.75, 1.0),
        augment: bool = True,
        vertical_flip: bool = False,
        crop: float = 0.5,
        colour: float = 0.2,
        batch_size: int = 8,
        on_bad: OnBad = "stop",
        examples: int = 4000,
        seed: int = 0,
        num_workers: int = 0,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size, examples=examples)
        at_least(0, num_workers=num_workers, seed=seed)
        between(0, 1, crop=crop, colour=colour)
        check_scale(scale)
        self.root = as_coco(root, columns)
        self.splits, self.images = {"train": train, "val": val, "test": test}, images
        self.shares = shares_of(val_fraction, test_fraction)
        self.split_seed, self.group = split_seed, pattern("group", group)
        self.preprocess = Preprocess(picture_size(image_size), mode="longest")
        if root is None:
            # Smaller, and some of the shapes have no pixel.
            at_least(16, image_size=min(self.preprocess.size))
        self.augment = Augment(vertical_flip, crop, colour, scale) if augment else None
        self.batch_size, self.on_bad, self.examples = batch_size, on_bad, examples
        self.seed, self.num_workers = seed, num_workers
        self.categories: dict[int, str] | None = None
        """Ids and names in the order of the labels."""
        self._read: dict[str, Annotations | ShapePictures] = {}
        self._whole: Annotations | None = None

    def annotations(self, split: str) -> Annotations | ShapePictures:
        """The checked pictures and boxes of "train", "val" or "test".

        Raises:
            UserError: files that are missing or wrong, see :mod:`tasks.data.coco` and
                :mod:`tasks.data.voc`; no picture; other classes than in training.
        """
        if split not in self._read:
            found = self._read_split(split)
            if not len(found):
                raise UserError(f"data.{split}={self.splits[split]!r} of {self.root} is empty.")
            if self.categories is None:
                self.categories = found.categories
            if found.categories != self.categories:
                raise UserError(
                    f"data.{split}={self.splits[split]!r} has the classes {listed(found.categories)}, "
                    f"but the model is for {listed(self.categories)}."
                )
            self._read[split] = found
        return self._read[split]

    def _read_split(self, split: str) -> Annotations | ShapePictures:
        if self.root is None:
            count = self.examples if split == "train" else max(100, self.examples // 40)
            return ShapePictures(count, min(self.preprocess.size), self.seed, split)
        files, shares = self.files, self._shares()
        if split == "val" and files.absent("val") and not self.shares["val"]:
            return self._read_split("test")
        if split in shares or (split == "train" and shares):
            whole = self._stored("train")
            parts = divide_pictures(whole.names, shares, self.split_seed, self.group)
            found = whole.part(parts[split])
        else:
            found = self._stored(split)
        if self.on_bad == "skip" and split != "train":
            # Evaluation cannot take another picture in place of a damaged one.
            mistakes = [mistake(picture.path) for picture in found.pictures]
            found = found.part(kept(mistakes, "skip"))
        return found

    @cached_property
    def files(self) -> AnnotationFiles:
        """Of ``root``."""
        assert self.root is not None
        return AnnotationFiles(self.root, self.splits, self.images)

    def _shares(self) -> dict[str, float]:
        """Of each split that is held out of "train", how much."""
        if self.files.place("train") is None:
            return {}
        return {s: share for s, share in self.shares.items() if share and self.files.absent(s)}

    def _stored(self, split: str) -> Annotations:
        """A split as its files have it; that of "train" is kept, as others may be parts of it."""
        if split == "train" and self._whole is not None:
            return self._whole
        if self.files.voc and self.categories is None and split != "train":
            self.annotations("train")  # which says what the classes are
        found = self.files.read(split, self.categories, self.on_bad)
        if split == "train":
            self._whole = found
        return found

    def _categories(self) -> dict[int, str]:
        """Ids and names: a checkpoint's, those of the first process, or the training split's."""
        if self.categories is None:
            self.annotations("train")
        assert self.categories is not None
        return self.categories

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self._categories()
        if stage in (None, "fit"):
            # Read now, so that a mistake in the files ends the run before it began.
            for split in ("train", "val"):
                found = self.annotations(split)
                if isinstance(found, Annotations) and all(p.iscrowd.all() for p in found.pictures):
                    crowds = sum(len(picture.boxes) for picture in found.pictures)
                    but = f" but {crowds} of crowds (iscrowd, or VOC's difficult)" * (crowds > 0)
                    raise UserError(
                        f"data.{split}={self.splits[split]!r} of {self.root} has no box{but} in any "
                        f"of {len(found)} pictures."
                    )

    @property
    def model_arguments(self) -> dict[str, Any]:
        """The classes; "no object" is the model's own."""
        return {"num_classes": len(self._categories())}

    def assets(self) -> dict[str, Any]:
        categories = self._categories()
        return {
            "labels": list(categories.values()),
            "category_ids": list(categories),
            "preprocess": dataclasses.asdict(self.preprocess),
        }

    def use_assets(self, assets: dict[str, Any]) -> None:
        given = dict(zip(assets["category_ids"], assets["labels"], strict=True))
        if self.categories is not None and self.categories != given:
            raise UserError(
                f"the data has the classes {listed(self.categories)}, but the checkpoint is for "
                f"{listed(given)}."
            )
        self.categories = given
        self.preprocess = Preprocess.from_dict(assets["preprocess"])

    def ground_truth(self, split: str) -> dict[str, Any]:
        """A split in COCO's format: images, annotations, categories, the ids as in the data."""
        found = self.annotations(split)
        pictures = [found.picture(i) for i in range(len(found))]
        return ground_truth(found.categories, pictures)

    def stored(self, split: str) -> Stored:
        found = self.annotations(split)
        return Stored(len(found), found.image)

    def class_counts(self) -> list[int]:
        """The training boxes of each class."""
        found = self.annotations("train")
        counts = np.zeros(len(found.categories), int)
        for i in range(len(found)):
            np.add.at(counts, found.picture(i).labels, 1)
        return counts.tolist()

    def degenerate(self, split: str) -> list[str]:
        """Boxes without area, which the reader leaves out, and those of less than a pixel to a model."""
        found = self.annotations(split)
        said = [] if isinstance(found, ShapePictures) else list(found.without_area)
        small = 0
        for i in range(len(found)):
            picture = found.picture(i)
            scale = min(s / own for s, own in zip(self.preprocess.size, picture.size, strict=True))
            small += int(((picture.boxes[:, 2:] - picture.boxes[:, :2]).min(1) * scale < 1).sum())
        if small:
            said.append(
                f"{small} boxes of {split} are thinner than a pixel at data.image_size="
                f"{self.preprocess.size}: no model can see what they hold; give a larger size or leave them out."
            )
        return said

    def loader(self, split: str) -> DataLoader[Any]:
        found, training = self.annotations(split), split == "train"
        augment = self.augment if training else None
        dataset = Detections(found, self.preprocess, augment, self.on_bad, self.order_seed)
        batches = ExampleBatches(
            len(found), self.batch_size, training, self.order_seed, self.progress
        )
        return batch_loader(dataset, batches, self.num_workers)


class Augment:
    """Change a picture and its boxes together; see the options of :class:`DetectionData`."""

    def __init__(
        self, vertical_flip: bool, crop: float, colour: float, scale: tuple[float, float]
    ) -> None:
        steps: list[Any] = [v2.RandomHorizontalFlip()]
        if vertical_flip:
            steps.append(v2.RandomVerticalFlip())
        if colour:
            steps.append(v2.ColorJitter(colour, colour, colour, colour / 5))
        self.steps, self.crop, self.scale = v2.Compose(steps), crop, scale

    def __call__(
        self, image: Image.Image, boxes: tv_tensors.BoundingBoxes, labels: Tensor
    ) -> tuple[Image.Image, Tensor, Tensor]:
        if torch.rand(()) < self.crop:
            image, boxes, labels = cut(image, boxes, labels)
        image, boxes = self.steps(image, boxes)
        return image, boxes.as_subclass(Tensor), labels

    def share(self) -> float:
        """Of the size into which the next picture is fitted."""
        low, high = self.scale
        return low + (high - low) * float(torch.rand(()))


def cut(
    image: Image.Image, boxes: tv_tensors.BoundingBoxes, labels: Tensor
) -> tuple[Image.Image, tv_tensors.BoundingBoxes, Tensor]:
    """A random part of a picture, at least half of each side.

    Boxes are cut with it; those of which less than ``VISIBLE`` is left go, since nobody could tell
    what they hold.
    """
    height, width = image.height, image.width
    tall = max(1, round(height * (0.5 + 0.5 * float(torch.rand(())))))
    wide = max(1, round(width * (0.5 + 0.5 * float(torch.rand(())))))
    top = int(torch.randint(height - tall + 1, ()))
    left = int(torch.randint(width - wide + 1, ()))
    before = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    image, boxes = (transforms.crop(x, top, left, tall, wide) for x in (image, boxes))
    keep = (boxes[:, 2:] - boxes[:, :2]).prod(1) >= VISIBLE * before
    return image, tv_tensors.wrap(boxes[keep], like=boxes), labels[keep]


class Detections(Dataset[Batch]):
    """Whole batches: pictures read, changed and made into tensors."""

    def __init__(
        self,
        found: Annotations | ShapePictures,
        preprocess: Preprocess,
        augment: Augment | None,
        on_bad: OnBad,
        seed: int,
    ) -> None:
        self.found, self.preprocess, self.augment = found, preprocess, augment
        self.on_bad, self.seed = on_bad, seed

    def __len__(self) -> int:
        return len(self.found)

    def example(self, pick: Pick) -> tuple[Tensor, Batch]:
        """``(3, height, width)`` and its target."""
        image = self.found.image(pick.index, self.preprocess.background)
        picture = self.found.picture(pick.index)
        mine = ~picture.iscrowd
        boxes = torch.from_numpy(picture.boxes[mine]).float()
        labels = torch.from_numpy(picture.labels[mine])
        preprocess = self.preprocess
        if self.augment is not None:
            with seeded(self.seed, pick):
                framed = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=picture.size)
                image, boxes, labels = self.augment(image, framed, labels)
                share = self.augment.share()
            height, width = (max(1, round(side * share)) for side in preprocess.size)
            preprocess = dataclasses.replace(preprocess, size=(height, width))
        target = {
            "labels": labels,
            "boxes": centred(boxes, image.height, image.width),
            "image_id": picture.image_id,
            "size": picture.size,
            "file": picture.path.name,
        }
        return preprocess(image), target

    def __getitems__(self, picks: list[Pick]) -> Batch:
        training = self.augment is not None
        return collate(read_picks(self.example, picks, len(self), self.on_bad, training))


def centred(boxes: Tensor, height: int, width: int) -> Tensor:
    """``(n, 4)`` x0, y0, x1, y1 in pixels to cx, cy, w, h as shares of the picture."""
    corners = boxes / boxes.new_tensor([width, height, width, height])
    low, high = corners[:, :2], corners[:, 2:]
    return torch.cat([(low + high) / 2, high - low], dim=1)


def collate(examples: list[tuple[Tensor, Batch]]) -> Batch:
    """A batch of :class:`DetectionData`, of pictures of unequal sizes."""
    height = max(pixels.shape[1] for pixels, _ in examples)
    width = max(pixels.shape[2] for pixels, _ in examples)
    pixel_values = torch.zeros(len(examples), 3, height, width)
    pixel_mask = torch.zeros(len(examples), height, width, dtype=torch.bool)
    for i, (pixels, _) in enumerate(examples):
        pixel_values[i, :, : pixels.shape[1], : pixels.shape[2]] = pixels
        pixel_mask[i, : pixels.shape[1], : pixels.shape[2]] = True
    targets = [target for _, target in examples]
    return {"pixel_values": pixel_values, "pixel_mask": pixel_mask, "targets": targets}


def mistake(path: Path) -> str | None:
    """Why a picture cannot be read; None where it can."""
    try:
        read_image(path)
    except UserError as error:
        return str(error)
    return None


def listed(categories: dict[int, str]) -> str:
    """The first classes with their ids."""
    shown = ", ".join(f"{number} {name}" for number, name in list(categories.items())[:5])
    return shown + (" ..." if len(categories) > 5 else "")
