"""Segmenter: a class for each pixel, from a ViT alone (Strudel et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.init import init_linear
from family.core.transformer import Transformer
from family.heads.classifier import PoolConfig
from family.inputs.patches import PatchConfig, covering, pair
from family.models.examples import PICTURES
from family.models.member import build, member
from family.models.vit import ViT

DECODERS = ("linear", "mask")


@member(
    task="Segmentation",
    reads=("pictures",),
    any_size=True,
    inputs=PICTURES,
    example={
        "num_classes": 5,
        "config": TransformerConfig(dim=16, depth=2, heads=2, position="learned"),
        "image_size": 16,
        "patch_size": 8,
    },
    variants=({"decoder": "linear"},),
    classes=("decoder.head.", "decoder.classes.", "decoder.norm."),
    renamed={
        "patch_bias": "patches.bias",
        "embedding_norm": "patches.norm",
    },
    # Of the encoder's head, which it never had.
    dropped={"pooler": None, "distilled": False, "head_bias": True, "head_dropout": 0.0},
)
class Segmenter(nn.Module):
    """ViT -> a vector a patch -> class scores a patch -> bilinear upsampling (section 3).

    Args:
        num_classes: classes, background included where it is one.
        config: the encoder's stack; the mask decoder's blocks are of the same kind.
        image_size: pixels, ``side`` or ``(height, width)``; other sizes work too.
        patch_size: pixels, ``side`` or ``(height, width)``.
        decoder: "linear", a layer on each patch, or "mask", the mask transformer (section 3.2).
        decoder_depth: blocks of the mask transformer.
        patches: of the encoder: the tokens before patches, their stem, and where they stand.

    Raises:
        ValueError: an unknown decoder, or a mask decoder with a single class.
    """

    def __init__(
        self,
        num_classes: int,
        config: TransformerConfig,
        image_size: int | Sequence[int] = 512,
        patch_size: int | Sequence[int] = 16,
        decoder: str = "mask",
        decoder_depth: int = 2,
        *,
        patches: PatchConfig = PatchConfig(),
    ) -> None:
        super().__init__()
        if decoder not in DECODERS:
            raise ValueError(
                f"decoder={decoder!r} is unknown; choose one of: {', '.join(DECODERS)}."
            )
        self.num_classes = num_classes
        self.image_size, self.patch_size = pair(image_size), pair(patch_size)
        covered = covering(self.image_size, self.patch_size)
        # Nothing is pooled, so the final norm has to stand before the pooling.
        pooling = PoolConfig("mean", norm_after=False)
        self.encoder = ViT(0, config, covered, patch_size, patches=patches, pooling=pooling)
        self.config = self.encoder.config
        self.decoder: nn.Module
        if decoder == "mask":
            self.decoder = MaskDecoder(num_classes, self.config, decoder_depth)
        else:
            self.decoder = LinearDecoder(num_classes, self.config)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` -> logits ``(batch, classes, height, width)``.

        A picture whose sides are no multiples of the patch's is filled up with zeros right and
        below, and the logits there are cut off.
        """
        height, width = pixel_values.shape[-2:]
        covered = covering((height, width), self.patch_size)
        padding = (0, covered[1] - width, 0, covered[0] - height)
        features = self.encoder.forward_features(F.pad(pixel_values, padding))
        scores = self.decoder(features[:, self.encoder.num_prefix_tokens :])
        scores = scores.transpose(1, 2).unflatten(2, self.encoder.grid(*covered))
        logits = F.interpolate(scores, covered, mode="bilinear")
        return logits[..., :height, :width]


class LinearDecoder(nn.Module):
    """Class scores of each patch by itself: ``(batch, patches, dim) -> (batch, patches, classes)``."""

    def __init__(self, num_classes: int, config: TransformerConfig) -> None:
        super().__init__()
        self.head = nn.Linear(config.dim, num_classes)
        init_linear(self.head)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


class MaskDecoder(nn.Module):
    """Patches and one learned token a class attend to each other; the score of a class at a patch is
    the product of their vectors (section 3.2, as in the authors' code: both projected and of unit
    length, a layer norm over the classes of a patch).

    Args:
        config: of the encoder; positions come with its patches.
        depth: blocks.
    """

    def __init__(self, num_classes: int, config: TransformerConfig, depth: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(
                f"decoder='mask' compares classes: num_classes must be at least 2, not {num_classes}."
            )
        dim = config.dim
        self.projection = nn.Linear(dim, dim)
        self.classes = nn.Embedding(num_classes, dim)
        self.transformer = Transformer(config.replace(depth=depth, position="none"))
        self.patch_projection = nn.Linear(dim, dim, bias=False)
        self.class_projection = nn.Linear(dim, dim, bias=False)
        self.norm = nn.LayerNorm(num_classes)
        init_linear(self.projection)
        nn.init.normal_(self.classes.weight, std=0.02)
        for layer in (self.patch_projection, self.class_projection):
            init_linear(layer, dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, patches, dim) -> (batch, patches, classes)``."""
        batch, patches, _ = x.shape
        classes = self.classes.weight.expand(batch, -1, -1)
        x = self.transformer(torch.cat([self.projection(x), classes], dim=1))
        patch = F.normalize(self.patch_projection(x[:, :patches]), dim=-1)
        mask = F.normalize(self.class_projection(x[:, patches:]), dim=-1)
        return self.norm(patch @ mask.transpose(1, 2))


def segmenter_small(
    num_classes: int = 150,
    patch_size: int | Sequence[int] = 16,
    image_size: int | Sequence[int] = 512,
    **overrides: Any,
) -> Segmenter:
    """Seg-S-Mask: a ViT-S and a mask transformer of 2 blocks, 26 M parameters.

    Args:
        overrides: arguments of :class:`Segmenter`, and fields of its configs: ``depth=6``,
            ``stem="conv"``.
    """
    small = {"dim": 384, "depth": 12, "heads": 6, "norm_eps": 1e-6, "position": "learned"}
    sizes = {"num_classes": num_classes, "image_size": image_size, "patch_size": patch_size}
    return build(Segmenter, {**sizes, **small, **overrides})


def segmenter_tiny(
    num_classes: int = 150,
    patch_size: int | Sequence[int] = 16,
    image_size: int | Sequence[int] = 512,
    **overrides: Any,
) -> Segmenter:
    """Seg-Ti-Mask, 7 M parameters; overrides as :func:`segmenter_small`."""
    tiny = {"dim": 192, "heads": 3}
    return segmenter_small(num_classes, patch_size, image_size, **{**tiny, **overrides})
