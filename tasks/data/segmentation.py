"""Pictures and masks that hold the class of every pixel."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from family.inputs.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from tasks.data import shapes
from tasks.data.augment import joint_transform
from tasks.data.base import FamilyData
from tasks.data.images import (
    OnBad,
    check_normalisation,
    check_scale,
    picture_size,
)
from tasks.data.kept_pictures import as_masks
from tasks.data.labelled_images import refuse_other_classes
from tasks.data.masks import (
    IGNORE_MASK,
    VALUES,
    Masks,
    Pair,
    check_pairs,
    check_values,
    count_values,
    find_pairs,
    names_of_values,
    numbers,
    split_folders,
)
from tasks.data.sampling import ExampleBatches, batch_loader
from tasks.data.segmentation_batches import SegmentationBatches
from tasks.data.splits import divide_pictures, pattern, shares_of
from tasks.data.stored import Stored
from tasks.data.text_files import read_lines
from tasks.errors import UserError, at_least, between


class SegmentationData(FamilyData):
    """Pictures and masks.

    A batch:

    - ``pixel_values (batch, 3, height, width)`` float32: normalised by ``mean`` and ``std``;
    - ``labels (batch, height, width)`` int64: the class of each pixel, 255 where it does not count;
      in evaluation a list of ``(height, width)``, each mask at its own size;
    - ``file``, in evaluation: the pictures' names;
    - ``segments``, with ``instances``: of each picture ``labels (n)``, ``masks (n, height, width)`` and
      ``counted (height, width)``, bool: the background is one, each object another.

    Args:
        root: with ``SPLIT/images`` and ``SPLIT/masks``, or ``images/SPLIT`` and ``masks/SPLIT``
            (or "annotations" or "labels" for "masks"); a picture and its mask have one name. SPLIT is
            train or training; val, valid, validation or dev; test or testing. ``images`` and ``masks``
            without splits are divided. A data set of Hugging Face's ``datasets`` on disk, or parquet, has the
            columns ``image`` and ``mask``. None is the built-in world of shapes.
        image_size: ``(height, width)`` of the model's input: training cuts it out, evaluation
            resizes the whole picture to it.
        classes: their names, by the values of the masks; by default the lines of
            ``root/classes.txt``, else numbers up to the largest value in training.
        ignore: values of the masks that do not count, in training or evaluation.
        values: of each value of the masks its class, where they are not numbered 0, 1, 2 ...:
            ``{0: 0, 255: 1}`` for masks of black and white; several values may be of one class.
        val_fraction, test_fraction, split_seed, group: how splits that are not there are held out of
            "train", as those of :class:`~tasks.data.image_classification.ImageClassificationData`,
            by the names of the pictures; classes have no say.
        augment: resize, cut and flip at random in training.
        scale: the least and greatest of the random resizing; 1 fits the picture to ``image_size``.
        colour: how strongly colours change in training: 0 to 1.
        on_bad: a picture that cannot be read ends the run ("stop") or is left out ("skip").
        instances: tell objects of one class apart, in the built-in world.
        examples: training pictures of the built-in world.
        columns: what ``image`` and ``mask`` of a data set are called: ``{mask: annotation}``.
    """

    task = "Segmentation"
    decided = ("image_size", "mean", "std")

    def __init__(
        self,
        root: str | None = None,
        image_size: int | tuple[int, int] = 96,
        batch_size: int = 16,
        classes: list[str] | None = None,
        ignore: int | list[int] | None = None,
        values: dict[int, int] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int | None = None,
        group: str | None = None,
        augment: bool = True,
        scale: tuple[float, float] = (0.5, 2.0),
        colour: float = 0.3,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        on_bad: OnBad = "stop",
        instances: bool = False,
        examples: int = 2000,
        seed: int = 0,
        num_workers: int = 0,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size, examples=examples)
        at_least(0, num_workers=num_workers, seed=seed)
        between(0, 1, colour=colour)
        check_scale(scale)
        check_normalisation(mean, std)
        self.root = as_masks(root, columns)
        if instances and root is not None:
            raise UserError(
                f"data.instances=true is for the built-in shapes: the masks of {root} say of each pixel "
                "its class, not its object."
            )
        self.instances = instances
        self.preprocess = Preprocess(picture_size(image_size), "squash", tuple(mean), tuple(std))
        if min(self.preprocess.size) * scale[0] < 1:
            raise UserError(f"data.scale={list(scale)} leaves no pixel of image_size={image_size}.")
        self.batch_size, self.asked = batch_size, classes
        self.ignore = [ignore] if isinstance(ignore, int) else list(ignore or [])
        for value in self.ignore:
            if not 0 <= value < VALUES:
                raise UserError(
                    f"data.ignore={value} must be a value of a mask, 0 to {VALUES - 1}."
                )
        self.shares = shares_of(val_fraction, test_fraction)
        self.split_seed, self.group = split_seed, pattern("group", group)
        self.values = values
        if values is not None:
            check_values(values, self.ignore)
        self.augment, self.scale, self.colour, self.on_bad = augment, scale, colour, on_bad
        self.examples, self.seed, self.num_workers = examples, seed, num_workers
        self.checked: dict[str, list[Pair]] = {}
        self.given: list[str] | None = None
        self.counted: Counter[int] = Counter()
        """Of each value its pixels in the training masks that were checked."""
        self.unread: list[Pair] = []
        """The other training masks."""

    # --- What there is -----------------------------------------------------------------------

    def _named(self) -> list[str] | None:
        """The classes as far as no mask need be read for them."""
        if self.root is None:
            return ["background", *shapes.CLASSES]
        file = self.root / "classes.txt"
        names = self.asked
        if names is None and file.is_file():
            names = read_lines(file)
        if self.values is None:
            return None if names is None else list(names)
        count = len(set(self.values.values()))
        if names is not None and len(names) != count:
            raise UserError(
                f"data.values has {count} classes, but {len(names)} are named: {', '.join(names)}."
            )
        return names_of_values(self.values) if names is None else list(names)

    @property
    def classes(self) -> list[str]:
        """Their names, in the order of the labels."""
        if self.given is None:
            self.given = self._named()
        if self.given is None:
            self.pairs("train")
        assert self.given is not None
        return self.given

    def pairs(self, split: str) -> list[Pair]:
        """The pictures and masks of "train", "val" or "test", checked.

        Raises:
            UserError: no such split; see :func:`find_pairs` and :func:`check_pairs`.
        """
        if split not in self.checked:
            if self.root is None:
                return self._shapes(split)
            self._check(split, self._parts(split))
        return self.checked[split]

    def _check(self, split: str, parts: dict[str, list[Pair]]) -> None:
        """Check the pairs of a split.

        Args:
            parts: where it is divided, those of the other splits too: a class that is known by its value
                alone may be in any of them.
        """
        if self.given is None:
            self.given = self._named()
        if self.given is None and split != "train":
            self.pairs("train")  # whose values are the classes
            if split in self.checked:
                return
        masks = None if self.given is None else self.masks
        total: Counter[int] = Counter()
        for name in [split] if masks else parts:
            self.checked[name], counts, unread = check_pairs(parts[name], masks, self.on_bad)
            if name == "train":
                self.counted, self.unread = counts, unread
            total.update(counts)
            if not {*counts} - {*self.ignore}:
                raise UserError(
                    f"every pixel of the {name} split in {self.root} has a value of data.ignore="
                    f"{self.ignore}: none counts."
                )
        if masks is None:
            self.given = numbers(np.array(sorted(total)), self.ignore)

    def _parts(self, split: str) -> dict[str, list[Pair]]:
        """The pairs of a split, and where it is divided those of all parts."""
        folders, whole = self._folders(split), self._folders("train")
        shares = {s: n for s, n in self.shares.items() if n and self._folders(s) is None}
        if split == "val" and folders is None and not self.shares["val"]:
            return {split: self._parts("test")["test"]}
        if whole is not None and (split in shares or (split == "train" and shares)):
            found = find_pairs(*whole)
            names = [Path(str(pair.image)).relative_to(whole[0]).as_posix() for pair in found]
            parts = divide_pictures(names, shares, self.split_seed, self.group)
            return {name: [found[i] for i in indices] for name, indices in parts.items()}
        if folders is None:
            raise UserError(
                f"{self.root} has no {split} split: it needs {split}/images and {split}/masks, "
                f"images/{split} and masks/{split}, or images and masks of all splits."
            )
        return {split: find_pairs(*folders)}

    def _shapes(self, split: str) -> list[Pair]:
        count = self.examples if split == "train" else max(100, self.examples // 10)
        size = max(self.preprocess.size)
        scenes = [shapes.sample(i, self.seed, split) for i in range(count)]
        self.checked[split] = [
            Pair(shapes.draw(scene, size), shapes.instances(scene, size), shapes.kinds(scene))
            if self.instances
            else Pair(shapes.draw(scene, size), shapes.segmentation(scene, size))
            for scene in scenes
        ]
        return self.checked[split]

    def _folders(self, split: str) -> tuple[Path, Path] | None:
        """Where a split's pictures and masks are; None where there is none."""
        assert self.root is not None
        return split_folders(self.root, split)

    @property
    def masks(self) -> Masks:
        """How the values of masks become labels."""
        return Masks(len(self.classes), self.ignore, self.values)

    # --- What Lightning and tasks ask for ----------------------------------------------------

    @property
    def model_arguments(self) -> dict[str, Any]:
        """What the data decides of a model."""
        return {"num_classes": len(self.classes), "image_size": self.preprocess.size}

    def assets(self) -> dict[str, Any]:
        ids = range(len(self.classes)) if self.root is None else self.masks.ids
        return {
            "labels": list(self.classes),
            "category_ids": list(ids),
            **({"things": list(ids)[1:]} if self.instances else {}),
            "preprocess": dataclasses.asdict(self.preprocess),
        }

    def class_counts(self) -> list[int]:
        """The pixels of each class in the training masks.

        Those that the checks have read are counted there, and only the others are read for it.
        """
        pairs = self.pairs("train")
        if self.root is None:
            masks = (
                np.asarray(p.mask) if p.kinds is None else np.array(p.kinds)[np.asarray(p.mask)]
                for p in pairs
            )
            drawn = np.concatenate([mask.ravel() for mask in masks])
            return np.bincount(drawn, minlength=len(self.classes)).tolist()
        known = self.masks
        if self.unread:
            self.counted.update(count_values(self.unread, known))
            self.unread = []
        counts = [0] * len(self.classes)
        for value, count in self.counted.items():
            label = int(known.table[value])
            if label != IGNORE_MASK:
                counts[label] += count
        return counts

    def use_assets(self, assets: dict[str, Any]) -> None:
        labels, ours = list(assets["labels"]), self._named()
        if ours is not None:
            refuse_other_classes(labels, ours, str(self.root or "the built-in data"))
        self.given = labels
        self.preprocess = Preprocess.from_dict(assets["preprocess"])

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        # Read now, so that a mistake in the files ends the run before it began.
        if stage in (None, "fit"):
            self.pairs("train")
        if stage in (None, "fit", "validate"):
            self.pairs("val")

    def predict_dataloader(self) -> DataLoader[Any]:
        known = self.root is None or self.shares["test"] or self._folders("test")
        return self.loader("test" if known else "val")

    def stored(self, split: str) -> Stored:
        pairs = self.pairs(split)
        return Stored(len(pairs), lambda i: pairs[i].image)

    def loader(self, split: str) -> DataLoader[Any]:
        train = split == "train"
        augment = None
        if train and self.augment:
            size = self.preprocess.size
            augment = joint_transform(size, self.scale, self.colour, mask_fill=IGNORE_MASK)
        masks = None if self.root is None else self.masks
        dataset = SegmentationBatches(
            self.pairs(split), masks, self.preprocess, augment, train, self.on_bad, self.order_seed
        )
        batches = ExampleBatches(
            len(dataset), self.batch_size, train, self.order_seed, self.progress, drop_last=train
        )
        return batch_loader(dataset, batches, self.num_workers)
