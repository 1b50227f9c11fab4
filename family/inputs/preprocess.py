"""From a picture to the tensor that a model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MODES = ("squash", "crop", "longest")


@dataclass(frozen=True)
class Preprocess:
    """Resize, scale to 0..1, normalise; plain values, so that a checkpoint carries it.

    Args:
        size: ``(height, width)`` in pixels.
        mode: "squash" resizes to ``size`` whatever the shape; "crop" resizes the picture to cover
            ``size`` and cuts the centre out; "longest" keeps the shape and fits the picture into
            ``size``, so that results differ in size.
        mean, std: of each channel, on the scale 0..1.
        interpolation: a name of torchvision's ``InterpolationMode``: "bilinear", "bicubic" ...
    """

    size: tuple[int, int]
    mode: str = "squash"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode={self.mode!r} is unknown; choose one of: {', '.join(MODES)}.")

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocess:
        """Of plain values, lists in place of tuples."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        return cls(**plain)

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """``(height, width)`` of a picture after resizing, before any crop."""
        if self.mode == "squash":
            return self.size
        ratios = self.size[0] / height, self.size[1] / width
        ratio = max(ratios) if self.mode == "crop" else min(ratios)
        return max(1, round(height * ratio)), max(1, round(width * ratio))

    def resize(self, image: Image.Image | Tensor) -> Image.Image | Tensor:
        """Resize a picture (and cut it, for "crop"), values unchanged."""
        height, width = transforms.get_size(image)
        wanted = self.target_size(height, width)
        if wanted != (height, width):
            mode = InterpolationMode(self.interpolation)
            image = transforms.resize(image, list(wanted), mode, antialias=True)
        if self.mode == "crop" and wanted != self.size:
            image = transforms.center_crop(image, list(self.size))
        return image

    def normalise(self, image: Image.Image | Tensor) -> Tensor:
        """``(channels, height, width)`` in float32 from a picture or a uint8 tensor."""
        pixels = transforms.to_dtype(transforms.to_image(image), torch.float32, scale=True)
        return transforms.normalize(pixels, list(self.mean), list(self.std)).as_subclass(Tensor)

    def __call__(self, image: Image.Image) -> Tensor:
        """``(3, height, width)`` of an RGB picture."""
        return self.normalise(self.resize(image))

    def restore(self, pixel_values: Tensor) -> Tensor:
        """The uint8 picture ``(..., 3, height, width)`` of normalised pixels, for looking at."""
        mean = pixel_values.new_tensor(self.mean)[:, None, None]
        std = pixel_values.new_tensor(self.std)[:, None, None]
        return ((pixel_values * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
