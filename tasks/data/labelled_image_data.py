"""Pictures with a label each, from files or the world of shapes; what the label is, subclasses say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from family.inputs.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from tasks.data.augment import Augment, ClassificationAugment, as_tensor
from tasks.data.images import OnBad, check_normalisation, picture_size, read_those
from tasks.data.labelled_data import MEMORY, LabelledData
from tasks.data.labelled_images import Labelled, decode
from tasks.data.sampling import ExampleBatches, Pick, batch_loader, seeded
from tasks.errors import UserError, at_least, between


class LabelledImageData(LabelledData):
    """Pictures with a label each; a subclass reads a split as it is stored (:meth:`_read`).

    Where there is no validation split, a part of the training split is held out, chosen by the
    hash of each picture's name.

    Args:
        root: where the data lies; None is the built-in world of shapes.
        image_size: of the model's input, ``height`` and ``width`` or one number for both.
        val_fraction, test_fraction: the shares held out of "train" for a split that is not there; no
            val_fraction validates on test.
        split_seed: None holds out by a hash of each picture's name: it stays where it is when others are
            added. A number draws the same share of every class.
        group: a regular expression; pictures in whose names it finds the same, as "patient-[0-9]+", are
            held out together.
        columns: see :class:`~tasks.data.text_data.TextData`; {image: photo, label: class}.
        train_fraction: the share of the training split that is trained on, chosen by the hash too;
            a smaller share is a part of any larger one.
        augment: "flip", "crop" (shifted by up to an eighth, flipped), "resized_crop" (a random
            part at the model's size, flipped) or "none".
        crop_scale: the least share of the area that "resized_crop" keeps.
        rand_augment: RandAugment in timm's words, such as "rand-m9-mstd0.5-inc1".
        random_erasing: share of the pictures of which a part becomes noise.
        on_bad: a picture that cannot be read ends the run ("stop") or is left out ("skip").
        cache: keep decoded pictures in memory, where a split's take at most a gigabyte.
        examples: training pictures of the built-in world.
    """

    decided = ("image_size", "mean", "std")

    def __init__(
        self,
        root: str | None = None,
        image_size: int | tuple[int, int] = 32,
        batch_size: int = 128,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int | None = None,
        group: str | None = None,
        train_fraction: float = 1.0,
        augment: Augment = "crop",
        crop_scale: float = 0.08,
        rand_augment: str | None = None,
        random_erasing: float = 0.0,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        on_bad: OnBad = "stop",
        cache: bool = True,
        examples: int = 8000,
        seed: int = 0,
        num_workers: int = 0,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__(
            root, val_fraction, test_fraction, split_seed, group, train_fraction, columns
        )
        at_least(1, batch_size=batch_size, examples=examples)
        at_least(0, num_workers=num_workers, seed=seed)
        between(0, 1, random_erasing=random_erasing)
        if not 0 < crop_scale <= 1:
            raise UserError(f"data.crop_scale must be above 0 and at most 1, not {crop_scale}.")
        check_normalisation(mean, std)
        self.preprocess = Preprocess(picture_size(image_size), "crop", tuple(mean), tuple(std))
        self.batch_size = batch_size
        self.augment, self.crop_scale = augment, crop_scale
        self.extras: dict[str, Any] = {
            "rand_augment": rand_augment,
            "random_erasing": random_erasing,
        }
        # A mistake in one of them shows now, not in the first batch.
        ClassificationAugment(self.preprocess, 2, augment, **self.extras)
        self.on_bad, self.cache, self.examples = on_bad, cache, examples
        self.seed, self.num_workers = seed, num_workers

    def _width(self) -> int:
        """How many numbers a label may become."""
        return 1

    def loader(self, split: str) -> DataLoader[Any]:
        train = split == "train"
        pictures = self.split(split)
        crop = None
        if train and self.augment == "resized_crop":
            crop = v2.RandomResizedCrop(self.preprocess.size, scale=(self.crop_scale, 1.0))
        store = None
        fits = len(pictures.names) * 3 * int(np.prod(self.preprocess.size)) <= MEMORY
        if self.cache and fits and crop is None:
            pictures, store = decode(pictures, self.preprocess, self.on_bad)
        augment = None
        if train:
            augment = ClassificationAugment(
                self.preprocess, self._width(), self.augment, **self.extras
            )
        dataset = LabelledBatches(
            pictures, self.preprocess, augment, crop, store, self.on_bad, self.order_seed
        )
        batches = ExampleBatches(
            len(dataset), self.batch_size, train, self.order_seed, self.progress, drop_last=train
        )
        return batch_loader(dataset, batches, self.num_workers)


class LabelledBatches(Dataset[dict[str, Any]]):
    """Whole batches of :class:`LabelledImageData`.

    Args:
        augment: None in evaluation.
        crop: what training does to a picture at its own size, in place of ``preprocess.resize``.
        store: all pictures, decoded.
    """

    def __init__(
        self,
        pictures: Labelled,
        preprocess: Preprocess,
        augment: ClassificationAugment | None,
        crop: Callable[[Image.Image], Image.Image] | None,
        store: Tensor | None,
        on_bad: OnBad,
        seed: int,
    ) -> None:
        self.pictures, self.preprocess, self.augment = pictures, preprocess, augment
        self.crop, self.store, self.on_bad, self.seed = crop, store, on_bad, seed
        numbers = pictures.labels
        whole = numbers.dtype.kind != "f"
        self.labels = torch.from_numpy(numbers.astype(np.int64) if whole else numbers)

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, index: int) -> Tensor:
        """``(3, height, width)`` uint8."""
        image = self.pictures.read(index, self.preprocess.background)
        sized = self.preprocess.resize(image) if self.crop is None else self.crop(image)
        return as_tensor(sized)

    def example(self, index: int) -> tuple[Tensor, Tensor, int]:
        return self.pixels(index), self.labels[index], index

    def __getitems__(self, picks: list[Pick]) -> dict[str, Any]:
        indices = [pick.index for pick in picks]
        with seeded(self.seed, picks[0]):
            if self.store is not None:
                pixels, labels = self.store[indices], self.labels[indices]
                places: Sequence[int] = indices
            else:
                images, numbers, places = zip(*self._read(indices), strict=True)
                pixels, labels = torch.stack(images), torch.stack(numbers)
            if self.augment is None:
                files = [self.pictures.names[i] for i in places]
                pixels = self.preprocess.normalise(pixels)
                return {"pixel_values": pixels, "labels": labels, "file": files}
            pixels, labels = self.augment(pixels, labels)
            return {"pixel_values": pixels, "labels": labels}

    def _read(self, indices: list[int]) -> list[tuple[Tensor, Tensor, int]]:
        training = self.augment is not None
        return read_those(self.example, indices, len(self), self.on_bad, training)
