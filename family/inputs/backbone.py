"""A picture becomes a map of features: a convolutional network, or a plain projection of patches."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import timm
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

RESNETS = "timm.models.resnet"
"""The module of timm whose networks can be made wider and deeper."""


def network(name: str, field: str = "backbone", width: int | None = None, **options: Any) -> Any:
    """Any network of timm.

    Args:
        name: as timm knows it ("resnet50").
        field: what the caller names it, for errors.
        width: channels of a ResNet's first stage, doubled at each of the next; None is as published.
        options: further arguments of ``timm.create_model``.

    Raises:
        ValueError: a name that timm does not know, a width that the network cannot have.
    """
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{field}={name!r} is not a model of timm.{hint}")
    if width is not None:
        if not is_resnet(name):
            raise ValueError(f"width={width} is for a ResNet of timm, and {name!r} is none.")
        if width < 8:
            raise ValueError(f"width={width} is too narrow; give 8 channels at least.")
        if options.get("pretrained"):
            raise ValueError(f"width={width} fits no published weights: it needs pretrained=False.")
        # A stem of several convolutions ends in twice its own width.
        options |= {"channels": [width << i for i in range(4)], "stem_width": (width + 1) // 2}
    made = timm.create_model(name, **options)
    if width is not None and any(
        m.out_channels == 0 for m in made.modules() if isinstance(m, nn.Conv2d)
    ):
        raise ValueError(f"width={width} is too narrow for the groups of {name!r}.")
    return made


def is_resnet(name: str) -> bool:
    """Whether a network of timm is one of its ResNets, ResNeXts and their like."""
    return ":" not in name and timm.model_entrypoint(name).__module__ == RESNETS


class CNNBackbone(nn.Module):
    """One stage of any network of timm.

    Args:
        name: as timm knows it ("resnet50").
        stage: which of the network's feature maps, from coarse -1 backwards; for a ResNet -1 has a
            stride of 32 pixels and -2 one of 16. Later layers are left out of the network.
        pretrained: fetch timm's published weights.
        frozen_norm: batch norms keep their statistics and weights, also in training. Right for
            pretrained weights and small batches; a network from scratch needs them to learn.
        freeze: "all", or the parameters that do not learn, by how their names begin
            (``["conv1", "bn1", "layer1"]`` in DETR).
        options: further arguments of :func:`network` (``dynamic_img_size=True`` for a ViT).

    Attributes:
        channels, stride: of the feature map.

    Raises:
        ValueError: a name, a stage or a beginning that the network does not have.
    """

    def __init__(
        self,
        name: str,
        stage: int = -1,
        pretrained: bool = False,
        frozen_norm: bool = True,
        freeze: str | Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__()
        options |= {"features_only": True, "out_indices": (stage,)}
        try:
            self.net = network(name, pretrained=pretrained, **options)
        except IndexError:
            raise ValueError(f"stage={stage}: {name!r} has fewer feature maps.") from None
        info: Any = self.net.feature_info
        self.channels, self.stride = int(info.channels()[-1]), int(info.reduction()[-1])
        self.frozen_norm, self.frozen = frozen_norm, freeze == "all"
        if not self.frozen:
            self._freeze([freeze] if isinstance(freeze, str) else freeze)
        for module in self.net.modules():
            if self.frozen or (frozen_norm and isinstance(module, BatchNorm)):
                module.requires_grad_(False)
        self.train()

    def _freeze(self, beginnings: Sequence[str]) -> None:
        parameters = list(self.net.named_parameters())
        for beginning in beginnings:
            chosen = [p for name, p in parameters if name.startswith(beginning)]
            if not chosen:
                children = ", ".join(name for name, _ in self.net.named_children())
                raise ValueError(
                    f"freeze={beginning!r}: no parameter of the backbone begins so; "
                    f"its parts are: {children}."
                )
            for parameter in chosen:
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> CNNBackbone:
        """As usual, but what is frozen stays as it is in evaluation."""
        super().train(mode and not self.frozen)
        if self.frozen_norm:
            for module in self.net.modules():
                if isinstance(module, BatchNorm):
                    module.eval()
        return self

    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """``(batch, 3, height, width)`` -> ``(batch, channels, rows, columns)`` and its mask.

        Args:
            pixel_mask: ``(batch, height, width)``, True = picture; None is all of it.

        Returns:
            the map, and ``(batch, rows, columns)`` by the nearest pixel, or None.
        """
        features = self.net(pixel_values)[-1]
        if pixel_mask is None:
            return features, None
        mask = F.interpolate(pixel_mask[:, None].float(), size=features.shape[-2:])
        return features, mask[:, 0].bool()


class PatchBackbone(nn.Module):
    """Each patch is projected alone, so that no cell of a picture sees its padding.

    Args:
        channels: of the map.
        patch_size: pixels of a side.
    """

    def __init__(self, channels: int, patch_size: int = 16) -> None:
        super().__init__()
        self.channels, self.stride = channels, patch_size
        self.project = nn.Conv2d(3, channels, patch_size, patch_size)

    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`CNNBackbone.forward`; a patch is picture if its first pixel is."""
        height, width = pixel_values.shape[-2:]
        below, beside = -height % self.stride, -width % self.stride
        features = self.project(F.pad(pixel_values, (0, beside, 0, below)))
        mask = None if pixel_mask is None else pixel_mask[:, :: self.stride, :: self.stride]
        return features, mask
