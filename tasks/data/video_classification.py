"""Clips and their classes: folders of frames, video files, and the moving world of shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from family.inputs.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from tasks.data.augment import as_tensor
from tasks.data.images import OnBad, check_normalisation, picture_size
from tasks.data.kept_pictures import as_clips
from tasks.data.labelled_clips import labelled_clips, labelled_shapes
from tasks.data.labelled_data import MEMORY, ClassData, split_folder
from tasks.data.labelled_image_data import LabelledBatches
from tasks.data.labelled_images import Labelled, stored
from tasks.data.sampling import ExampleBatches, batch_loader
from tasks.errors import UserError, at_least


class VideoClassificationData(ClassData):
    """Clips and their classes.

    A batch:

    - ``pixel_values (batch, frames, 3, height, width)`` float32: normalised by ``mean`` and ``std``;
    - ``labels (batch,)`` int64: ids of the classes;
    - ``file``: the clips' names.

    Where there is no validation split, a part of the training split is held out, chosen by the
    hash of each clip's name.

    Args:
        root: ``root/SPLIT/CLASS/CLIP`` or ``root/CLASS/CLIP``, where a clip is a folder of pictures, one a
            frame, in the order of the numbers in their names, or, with the ``av`` package, a video file;
            None is the built-in world, in which shapes move. A data set of Hugging Face's ``datasets`` on disk,
            or parquet, has the columns ``video`` or ``frames``, and ``label`` (see
            :func:`~tasks.data.kept_pictures.as_clips`). SPLIT is train or training; val, valid,
            validation or dev; test or testing.
        frames: of a clip for the model, evenly over its length: clips may be of unequal lengths, but none
            shorter.
        image_size: of the model's input, ``height`` and ``width`` or one number for both: a frame is
            resized to cover it, and its centre cut out.
        val_fraction, test_fraction: the shares held out of "train" for a split that is not there; no
            val_fraction validates on test.
        split_seed: None holds out by a hash of each clip's name: it stays where it is when others are
            added. A number draws the same share of every class.
        group: a regular expression; clips in whose names it finds the same are held out together.
        train_fraction: the share of the training split that is trained on, chosen by the hash too.
        on_bad: a clip that cannot be read or is too short ends the run ("stop") or is left out ("skip").
        cache: keep decoded clips in memory, where a split's take at most a gigabyte.
        examples: training clips of the built-in world.
        columns: what ``video``, or ``frames``, and ``label`` of a data set are called: ``{label: verb}``.
    """

    task = "VideoClassification"
    decided = ("frames", "image_size", "mean", "std")

    def __init__(
        self,
        root: str | None = None,
        frames: int = 8,
        image_size: int | tuple[int, int] = 32,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        split_seed: int | None = None,
        group: str | None = None,
        train_fraction: float = 1.0,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        on_bad: OnBad = "stop",
        cache: bool = True,
        examples: int = 8000,
        seed: int = 0,
        num_workers: int = 0,
        columns: dict[str, str] | None = None,
    ) -> None:
        place = as_clips(root, columns)
        super().__init__(
            None if place is None else str(place),
            val_fraction,
            test_fraction,
            split_seed,
            group,
            train_fraction,
        )
        at_least(1, frames=frames, batch_size=batch_size, examples=examples)
        at_least(0, num_workers=num_workers, seed=seed)
        check_normalisation(mean, std)
        self.preprocess = Preprocess(picture_size(image_size), "crop", tuple(mean), tuple(std))
        self.frames, self.batch_size = frames, batch_size
        self.on_bad, self.cache, self.examples = on_bad, cache, examples
        self.seed, self.num_workers = seed, num_workers

    def _read(self, split: str) -> Labelled | None:
        root = self.root
        if root is None:
            size = max(self.preprocess.size)
            return labelled_shapes(self._count(split), size, self.frames, self.seed, split)
        if not root.is_dir():
            what = "is no folder" if root.exists() else "does not exist"
            raise UserError(f"data.root {root} {what}.")
        folder = split_folder(root, split)
        return None if folder is None else labelled_clips(folder, self.frames, self.on_bad)

    @property
    def model_arguments(self) -> dict[str, Any]:
        return {**super().model_arguments, "frames": self.frames}

    def assets(self) -> dict[str, Any]:
        return {**super().assets(), "frames": self.frames}

    def use_assets(self, assets: dict[str, Any]) -> None:
        if assets["frames"] != self.frames:
            self.frames = assets["frames"]
            self.known.clear()  # they are read by the number of before
        super().use_assets(assets)

    def loader(self, split: str) -> DataLoader[Any]:
        train, clips, store = split == "train", self.split(split), None
        shape = (self.frames, 3, *self.preprocess.size)
        if self.cache and len(clips.names) * int(np.prod(shape)) <= MEMORY:
            reader = ClipBatches(clips, self.preprocess, None, None, None, self.on_bad, 0)
            clips, store = stored(clips, reader.pixels, shape, self.on_bad, "clips")
        dataset = ClipBatches(
            clips, self.preprocess, None, None, store, self.on_bad, self.order_seed
        )
        batches = ExampleBatches(
            len(dataset), self.batch_size, train, self.order_seed, self.progress, drop_last=train
        )
        return batch_loader(dataset, batches, self.num_workers)


class ClipBatches(LabelledBatches):
    """Whole batches of :class:`VideoClassificationData`."""

    def pixels(self, index: int) -> Tensor:
        """``(frames, 3, height, width)`` uint8."""
        frames = self.pictures.read(index, self.preprocess.background)
        return torch.stack([as_tensor(self.preprocess.resize(frame)) for frame in frames])
