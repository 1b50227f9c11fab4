"""Batches of pictures and masks, and of the segments in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from family.inputs.preprocess import Preprocess
from family.losses.mask_matching import class_segments
from tasks.data.augment import as_tensor
from tasks.data.images import OnBad, read_image, read_those
from tasks.data.masks import IGNORE_MASK, Masks, Pair, read_pair_mask
from tasks.data.sampling import Pick, seeded

VALUES = 256
"""Of masks in memory."""


class SegmentationBatches(Dataset[dict[str, Any]]):
    """Whole batches of :class:`SegmentationData`.

    Args:
        masks: None where masks hold labels already.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        masks: Masks | None,
        preprocess: Preprocess,
        augment: Callable[[dict[str, Any]], dict[str, Any]] | None,
        train: bool,
        on_bad: OnBad,
        seed: int,
    ) -> None:
        self.pairs, self.masks, self.preprocess = pairs, masks, preprocess
        self.on_bad, self.seed, self.train, self.augment = on_bad, seed, train, augment

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """Picture ``index`` at its own size, and its labels ``(height, width)`` in uint8."""
        pair = self.pairs[index]
        if isinstance(pair.image, Image.Image):
            return pair.image, np.asarray(pair.mask, np.uint8)
        assert self.masks is not None and isinstance(pair.mask, Path)
        labels = self.masks.labels(read_pair_mask(pair), pair.mask)
        picture = read_image(pair.image, background=self.preprocess.background)
        return picture, labels.astype(np.uint8)

    def name(self, index: int) -> str:
        """What picture ``index`` is called: its path below the folder of all, or its number."""
        path = self.pairs[index].image
        if not isinstance(path, Path):
            return f"{index}.png"
        return path.relative_to(self.folder).as_posix()

    @cached_property
    def folder(self) -> Path:
        """That all pictures lie below."""
        return Path(os.path.commonpath([Path(str(pair.image)).parent for pair in self.pairs]))

    def named(self, index: int) -> tuple[Tensor, Tensor, str, Sequence[int] | None]:
        """An example, what it is called, and the classes of its mask's numbers."""
        return (*self.example(index), self.name(index), self.pairs[index].kinds)

    def example(self, index: int) -> tuple[Tensor, Tensor]:
        image, labels = self.read(index)
        if self.augment is None:
            pixels = as_tensor(self.preprocess.resize(image))
            if self.train:
                size = pixels.shape[2], pixels.shape[1]
                labels = np.array(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
            return pixels, torch.from_numpy(labels.copy())
        both = {
            "image": tv_tensors.Image(as_tensor(image)),
            "mask": tv_tensors.Mask(torch.from_numpy(labels.copy())),
        }
        both = self.augment(both)
        return both["image"].as_subclass(Tensor), both["mask"].as_subclass(Tensor)

    def __getitems__(self, picks: list[Pick]) -> dict[str, Any]:
        indices = [pick.index for pick in picks]
        with seeded(self.seed, picks[0]):
            examples = read_those(self.named, indices, len(self), self.on_bad, self.train)
        images, masks, names, kinds = zip(*examples, strict=True)
        pixels = self.preprocess.normalise(torch.stack(images))
        labels = [mask.long() for mask in masks]
        batch: dict[str, Any] = {"pixel_values": pixels}
        if kinds[0] is not None:
            batch["segments"] = class_segments(labels, IGNORE_MASK)
            for i, (one, segments) in enumerate(zip(kinds, batch["segments"], strict=True)):
                table = torch.full((VALUES,), IGNORE_MASK)
                table[: len(one)] = torch.tensor(one)
                labels[i], segments["labels"] = table[labels[i]], table[segments["labels"]]
        if self.train:
            return {**batch, "labels": torch.stack(labels)}
        return {**batch, "labels": labels, "file": list(names)}
