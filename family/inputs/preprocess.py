"""From a picture to the tensor that a model was trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from family.inputs.audio import LogMel
from family.inputs.pictures import WHITE, Colour, as_picture
from family.inputs.series import SeriesPreprocess

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
THIN = 1000
"""How many times as long as wide a picture is that has no use as a whole."""
MODES = ("squash", "crop", "longest", "edges")


@dataclass(frozen=True)
class Preprocess:
    """Resize, scale to 0..1, normalise; plain values, so that a checkpoint carries it.

    Args:
        size: ``(height, width)`` in pixels; for "edges" the shorter and the longer side.
        mode: "squash" resizes to ``size`` whatever the shape; "crop" resizes the picture, see
            ``resized``, and cuts the centre out. Two keep the shape, so that results differ in size:
            "longest" fits the picture into ``size``; "edges" makes its shorter side the first of
            ``size``, or less where its longer side would exceed the second (DETR).
        mean, std: of each channel, on the scale 0..1.
        interpolation: a name of torchvision's ``InterpolationMode``: "bilinear", "bicubic" ...
        resized: for "crop", pixels of the shorter side, or ``(height, width)`` whatever the shape;
            None just covers ``size``.
        floor: a centre between two pixels is cut at the first (transformers), not at the even one
            (torchvision).
        multiple: for "edges", both sides are rounded down to multiples of so many pixels (ViLT).
        background: what shows through transparent pictures, 0 to 255: who reads a picture for this
            model reads it so (:func:`family.inputs.pictures.read_image`).
    """

    size: tuple[int, int]
    mode: str = "squash"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    resized: int | tuple[int, int] | None = None
    floor: bool = False
    multiple: int = 1
    background: Colour = WHITE

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode={self.mode!r} is unknown; choose one of: {', '.join(MODES)}.")
        if self.resized is not None and self.mode != "crop":
            raise ValueError(f"resized={self.resized} is for mode='crop', not {self.mode!r}.")
        if self.multiple < 1 or (self.multiple > 1 and self.mode != "edges"):
            raise ValueError(
                f"multiple={self.multiple} must be over 0, and 1 but for mode='edges' (this is "
                f"{self.mode!r})."
            )
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise ValueError(
                f"background={list(self.background)} must be a colour: red, green and blue, 0 to 255."
            )

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocess:
        """Of plain values, lists in place of tuples."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        return cls(**plain)

    def at(self, size: int | Sequence[int]) -> Preprocess:
        """The same for pictures of another size, ``side`` or ``(height, width)`` in pixels."""
        height, width = (size, size) if isinstance(size, int) else size
        before, resized = self.size, self.resized
        if self.mode == "edges":
            longer = round(before[1] * min(height, width) / before[0])
            return dataclasses.replace(self, size=(min(height, width), longer))
        if isinstance(resized, int):
            resized = round(resized * min(height, width) / min(before))
        elif resized is not None:
            resized = round(resized[0] * height / before[0]), round(resized[1] * width / before[1])
        return dataclasses.replace(self, size=(height, width), resized=resized)

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """``(height, width)`` of a picture after resizing, before any crop."""
        if self.mode == "squash":
            return self.size
        if self.mode == "edges" and self.multiple > 1:
            return in_multiples(height, width, *self.size, self.multiple)
        if self.mode == "edges":
            return within_edges(height, width, *self.size)
        if isinstance(self.resized, int):
            return shorter_side(height, width, self.resized)
        if self.resized is not None:
            return self.resized
        ratios = self.size[0] / height, self.size[1] / width
        ratio = max(ratios) if self.mode == "crop" else min(ratios)
        return max(1, round(height * ratio)), max(1, round(width * ratio))

    def resize(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        """Resize a picture (and cut it, for "crop"), values unchanged."""
        height, width = transforms.get_size(image)
        least = min(height, width)
        if self.mode == "crop" and max(height, width) > THIN * least:
            # Of a thread the centre alone is left: the whole is not enlarged before.
            height, width = min(height, THIN * least), min(width, THIN * least)
            image = transforms.center_crop(image, [height, width])
        wanted = self.target_size(height, width)
        if wanted != (height, width):
            mode = InterpolationMode(self.interpolation)
            image = transforms.resize(image, list(wanted), mode, antialias=True)
        if self.mode == "crop" and wanted != self.size:
            top, left = map(self._before, wanted, self.size)
            image = transforms.crop(image, top, left, *self.size)
        return image

    def _before(self, side: int, cut: int) -> int:
        """Pixels before the cut out ones; fewer than none where the picture is filled up with black."""
        spare = side - cut
        return int(spare / 2) if self.floor or spare < 0 else round(spare / 2)

    def normalise(self, image: Image.Image | Tensor) -> Tensor:
        """``(channels, height, width)`` in float32 from a picture or a uint8 tensor."""
        pixels = transforms.to_dtype(transforms.to_image(image), torch.float32, scale=True)
        return transforms.normalize(pixels, list(self.mean), list(self.std)).as_subclass(Tensor)

    def __call__(self, image: Image.Image | str | Path | Tensor) -> Tensor:
        """``(3, height, width)`` of a picture as the commands take it, of any mode or by its path (see
        :func:`~family.inputs.pictures.as_picture`), or of a uint8 tensor of three channels.

        Raises:
            ValueError: a file that is missing or broken, or something else.
        """
        picture = image if isinstance(image, Tensor) else as_picture(image, self.background)
        return self.normalise(self.resize(picture))

    def restore(self, pixel_values: Tensor) -> Tensor:
        """The uint8 picture ``(..., 3, height, width)`` of normalised pixels, for looking at."""
        mean = pixel_values.new_tensor(self.mean)[:, None, None]
        std = pixel_values.new_tensor(self.std)[:, None, None]
        return ((pixel_values * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def shorter_side(height: int, width: int, side: float) -> tuple[int, int]:
    """The shorter side becomes ``side``, the other keeps the shape, rounded down as torchvision does."""
    if height <= width:
        return max(1, round(side)), max(1, int(side * width / height))
    return max(1, int(side * height / width)), max(1, round(side))


def within_edges(height: int, width: int, shorter: int, longer: int) -> tuple[int, int]:
    """The shorter side becomes ``shorter``, or less where the longer would exceed ``longer``."""
    least, most = min(height, width), max(height, width)
    side = min(shorter, longer * least / most)
    if round(side) == least:
        return height, width
    return shorter_side(height, width, side)


def in_multiples(
    height: int, width: int, shorter: int, longer: int, multiple: int
) -> tuple[int, int]:
    """The same, rounded to pixels and then down to multiples of so many, one at least."""
    scale = shorter / min(height, width)
    sides = [shorter if side == min(height, width) else side * scale for side in (height, width)]
    if max(sides) > longer:
        scale = longer / max(sides)
        sides = [side * scale for side in sides]
    down, across = (max(1, int(side + 0.5) // multiple) * multiple for side in sides)
    return down, across


Prepares = Preprocess | LogMel | SeriesPreprocess
"""Of pictures, of sound, or of numeric series."""


def as_preprocess(fields: dict[str, Any]) -> Prepares:
    """What was kept as plain values: of pictures, or, known by its bands, of sound, or, by its channels, of
    numeric series."""
    if "channels" in fields:
        return SeriesPreprocess.from_dict(fields)
    return LogMel.from_dict(fields) if "mels" in fields else Preprocess.from_dict(fields)
