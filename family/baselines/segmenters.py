"""Convolutional networks that segment: torchvision's heads on networks of timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models import segmentation
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from family.inputs.backbone import CNNBackbone
from family.models.examples import PICTURES
from family.models.member import member

STRIDES = (8, 16, 32)
RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}
"""Of DeepLab by the stride of the map (Chen et al. 2017, section 4.1): the finer, the wider."""


class Dilated(CNNBackbone):
    """The last feature map of a network of timm, kept fine by dilation, as torchvision's heads ask.

    Args:
        name: as timm knows it.
        output_stride: pixels of a cell's side.
        width: of a ResNet, see :func:`~family.inputs.backbone.network`.
        pretrained: fetch timm's published weights.

    Raises:
        ValueError: a stride that there is not, or that this network cannot have.
    """

    def __init__(self, name: str, output_stride: int, width: int | None, pretrained: bool) -> None:
        if output_stride not in STRIDES:
            known = ", ".join(map(str, STRIDES))
            raise ValueError(f"output_stride={output_stride} is unknown; choose one of: {known}.")
        options: dict[str, Any] = {"output_stride": output_stride, "width": width}
        try:
            super().__init__(name, pretrained=pretrained, frozen_norm=False, **options)
            dilates = self.stride == output_stride
        except (AssertionError, NotImplementedError, TypeError):  # as one or the other network says
            dilates = False
        if not dilates:
            raise ValueError(f"output_stride={output_stride}: {name!r} cannot dilate its maps.")

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """``(batch, 3, height, width)`` -> ``out`` ``(batch, channels, rows, columns)``."""
        return {"out": super().forward(pixel_values)[0]}


DILATED: dict[str, Any] = {
    "task": "Segmentation",
    "reads": ("pictures",),
    "inputs": PICTURES,
    "example": {"num_classes": 5, "width": 8},
    "any_size": True,
}
"""The facts of both networks below."""


@member(**DILATED)
class FCN(nn.Module):
    """The fully convolutional network of torchvision: dilated backbone -> two convolutions -> bilinear.

    After Long et al. 2015, with dilation in the place of skip connections (Yu & Koltun 2016).

    Args:
        num_classes: classes, background included where it is one.
        backbone: any network of timm that can dilate, by name.
        output_stride: pixels of a side of a cell of the feature map: 8 in torchvision, 16 or 32.
        width: channels of a ResNet's first stage, doubled at each of the next; None is as published.
        pretrained: fetch timm's published weights of the backbone.

    Raises:
        ValueError: a backbone or a stride that there is not.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet18",
        output_stride: int = 8,
        width: int | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        body = Dilated(backbone, output_stride, width, pretrained)
        self.net = segmentation.FCN(body, FCNHead(body.channels, num_classes))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """``(batch, 3, height, width)`` -> logits ``(batch, classes, height, width)``."""
        return self.net(pixel_values)["out"]


@member(**DILATED)
class DeepLab(nn.Module):
    """DeepLab v3 of torchvision: dilated backbone -> convolutions of several rates -> bilinear.

    After Chen et al. 2017, section 3.3.

    Args:
        num_classes, backbone, output_stride, width, pretrained: as of :class:`FCN`.
        rates: dilation of the head's parallel convolutions, in cells; None is the paper's for the
            stride, which are wider than the map of a small picture.

    Raises:
        ValueError: a backbone or a stride that there is not.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet18",
        output_stride: int = 8,
        rates: Sequence[int] | None = None,
        width: int | None = None,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        body = Dilated(backbone, output_stride, width, pretrained)
        head = DeepLabHead(
            body.channels, num_classes, RATES[output_stride] if rates is None else rates
        )
        self.net = segmentation.DeepLabV3(body, head)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """``(batch, 3, height, width)`` -> logits ``(batch, classes, height, width)``.

        Raises:
            ValueError: a single picture in training, whose mean the head could not normalise.
        """
        if self.training and len(pixel_values) == 1:
            raise ValueError("DeepLab needs two pictures or more in a batch of training.")
        return self.net(pixel_values)["out"]
