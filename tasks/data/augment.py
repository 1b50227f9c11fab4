"""Augmentation: of single pictures, of uint8 batches, and of picture, boxes and mask together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

from family.inputs.preprocess import Preprocess

Augment = Literal["none", "flip", "crop", "resized_crop"]
GREY = (124, 116, 104)
"""The mean colour of photographs, which fills what lies outside a picture."""


def mirror(pictures: Tensor) -> Tensor:
    """Flip half of the pictures of a batch ``(batch, channels, height, width)``."""
    flipped = torch.rand(len(pictures)) < 0.5
    return torch.where(flipped[:, None, None, None], pictures.flip(-1), pictures)


def shift(pictures: Tensor) -> Tensor:
    """Move each picture of a batch by up to an eighth of its size; black comes in at the edges.

    The random crop of a picture padded by 4 pixels that CIFAR's recipes have at 32 x 32.
    """
    batch, _, height, width = pictures.shape
    down, right = max(1, height // 8), max(1, width // 8)
    padded = F.pad(pictures, (right, right, down, down))
    rows = torch.randint(2 * down + 1, (batch, 1)) + torch.arange(height)
    columns = torch.randint(2 * right + 1, (batch, 1)) + torch.arange(width)
    which = torch.arange(batch)[:, None, None]
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def posterise(picture: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's, also of no bits: a black picture, which Pillow refuses to make from its version 13 on."""
    if bits < 1:
        return Image.new(picture.mode, picture.size)
    return auto_augment.posterize(picture, bits)


class RandAugment:
    """RandAugment (Cubuk et al. 2020), timm's, of each picture of a uint8 batch.

    Args:
        config: timm's description, such as "rand-m9-mstd0.5-inc1".

    Raises:
        ValueError: timm does not know it.
    """

    def __init__(self, config: str) -> None:
        try:
            self.change = auto_augment.rand_augment_transform(config, {"img_mean": GREY})
        except (AssertionError, ValueError, KeyError):
            raise ValueError(
                f"rand_augment={config!r} is unknown: it has a form like 'rand-m9-mstd0.5-inc1'."
            ) from None
        for op in self.change.ops:
            if op.aug_fn is auto_augment.posterize:
                op.aug_fn = posterise

    def __call__(self, pictures: Tensor) -> Tensor:
        arrays = pictures.permute(0, 2, 3, 1).contiguous().numpy()
        changed = [np.asarray(self.change(Image.fromarray(array))) for array in arrays]
        return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2)


class ClassificationAugment:
    """What happens to a batch of equally large pictures and their labels in training.

    Args:
        classes: number of classes.
        augment: "flip" mirrors half of the pictures; "crop" shifts them too; "resized_crop" only
            flips here, because its cut comes before, from the picture at its own size.
        rand_augment: see :class:`RandAugment`.
        random_erasing: share of the pictures of which a part becomes noise (Zhong et al. 2020).
        mixup, cutmix: strength of mixing a batch with itself (Zhang et al. 2018, Yun et al. 2019);
            where both are wanted, each batch draws one of them.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        classes: int,
        augment: Augment,
        rand_augment: str | None = None,
        random_erasing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        self.preprocess, self.augment = preprocess, augment
        self.rand_augment = RandAugment(rand_augment) if rand_augment else None
        self.erase = None
        if random_erasing:
            self.erase = RandomErasing(random_erasing, mode="pixel", device="cpu")
        mixes: list[Any] = []
        if mixup:
            mixes.append(v2.MixUp(alpha=float(mixup), num_classes=classes))
        if cutmix:
            mixes.append(v2.CutMix(alpha=float(cutmix), num_classes=classes))
        self.mix = v2.RandomChoice(mixes) if mixes else None

    def __call__(self, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pictures and labels of uint8 pictures and ``(batch,)`` labels.

        With mixup or cutmix labels become probabilities ``(batch, classes)``.
        """
        if self.augment == "crop":
            pictures = shift(pictures)
        if self.augment != "none":
            pictures = mirror(pictures)
        if self.rand_augment is not None:
            pictures = self.rand_augment(pictures)
        pixels = self.preprocess.normalise(pictures)
        if self.erase is not None:
            pixels = self.erase(pixels)
        return (pixels, labels) if self.mix is None else self.mix(pixels, labels)


def joint_transform(
    size: tuple[int, int],
    scale: tuple[float, float] = (0.5, 2.0),
    colour: float = 0.0,
    mask_fill: int = 255,
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What happens to a picture in training, and to its mask (and boxes) with it.

    The picture is resized to fit ``size`` times a random ``scale``, cut (or padded with grey) to
    ``size`` at a random place, changed in colour, and flipped in half of the cases.

    Args:
        size: ``(height, width)`` of the result.
        colour: how strongly brightness, contrast and saturation change: 0 to 1.
        mask_fill: the mask's value where padding is.

    Returns:
        a function of a dictionary with an "image" (``tv_tensors.Image``) and, as wanted,
        ``tv_tensors.Mask`` and ``tv_tensors.BoundingBoxes`` under any names.
    """
    fill = {tv_tensors.Image: GREY, tv_tensors.Mask: mask_fill, "others": 0}
    # torchvision takes the size of this one as (width, height).
    steps: list[Any] = [v2.ScaleJitter((size[1], size[0]), scale, antialias=True)]
    steps.append(v2.RandomCrop(size, pad_if_needed=True, fill=fill))
    if colour:
        steps.append(v2.ColorJitter(colour, colour, colour))
    steps.append(v2.RandomHorizontalFlip())
    return v2.Compose(steps)


def as_tensor(image: Any) -> Tensor:
    """``(3, height, width)`` uint8 of an RGB picture."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
