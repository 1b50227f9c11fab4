"""Convolutional networks that classify pictures: any of timm's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from family.inputs.backbone import is_resnet, network
from family.models.examples import PICTURES
from family.models.member import member


@member(
    task="ImageClassification",
    reads=("pictures",),
    inputs=PICTURES,
    # Not 8 wide: of 8 channels, PyTorch 2.15's backward of a 1x1 convolution of stride 2 ends the process where
    # channels come last, as in compiled steps.
    example={"num_classes": 5, "small": True, "width": 16, "layers": (1, 1, 1, 1)},
    heads={"ImageRegression": {"num_classes": 1}},
    any_size=True,
)
class CNN(nn.Module):
    """A network of timm, such as a ResNet (He et al. 2016), its last layer being the classes.

    Args:
        num_classes: of which one is to be told.
        name: as timm knows it.
        small: for pictures of about 32 pixels a ResNet begins with a 3x3 convolution of stride 1, and
            does not pool after it (section 4.2).
        width: channels of a ResNet's first stage, doubled at each of the next; None is as published.
        layers: blocks in each of a ResNet's four stages; None is as published.
        dropout: before the classes.
        drop_path: drop rate of whole residual branches, growing with the depth (Huang et al. 2016).
        pretrained: fetch timm's published weights.

    Raises:
        ValueError: an unknown name; options of a ResNet for another network, or for published weights.
    """

    def __init__(
        self,
        num_classes: int,
        name: str = "resnet18",
        small: bool = False,
        width: int | None = None,
        layers: Sequence[int] | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        if pretrained and (small or layers is not None):
            option = "small=True" if small else f"layers={list(layers or ())}"
            raise ValueError(
                f"{option} leaves a network that no published weights fit: it needs "
                "pretrained=False."
            )
        self.num_classes = num_classes
        options: dict[str, Any] = {"drop_rate": dropout, "pretrained": pretrained}
        if drop_path:  # which not every network knows
            options["drop_path_rate"] = drop_path
        if layers is not None:
            check_resnet(name, f"layers={list(layers)}")
            if len(layers) != 4:
                raise ValueError(f"layers={list(layers)} needs the blocks of each of four stages.")
            options["layers"] = list(layers)
        if small:
            check_resnet(name, "small=True")
            # The rest of the network is then made for a stem of as many channels.
            options |= {"stem_type": "deep", "stem_width": 32}
        try:
            self.net: Any = network(name, "name", width, num_classes=num_classes, **options)
        except TypeError:
            if not drop_path:
                raise
            raise ValueError(
                f"drop_path={drop_path}: {name!r} has no residual branches to drop."
            ) from None
        if small:
            channels = self.net.bn1.num_features
            self.net.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(self.net.conv1.weight, mode="fan_out", nonlinearity="relu")
            self.net.maxpool = nn.Identity()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """``(batch, 3, height, width)`` -> logits ``(batch, classes)``."""
        return self.net(pixel_values)


def check_resnet(name: str, option: str) -> None:
    if not is_resnet(name):
        raise ValueError(f"{option} is for a ResNet of timm, and name={name!r} is none.")
