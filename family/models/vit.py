"""ViT: a picture is a sequence of patches (Dosovitskiy et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.heads.classifier import PoolConfig, Pooler, Pooling, class_head
from family.inputs.patches import PatchConfig, PatchEmbedding, over_patches
from family.models.examples import PICTURES
from family.models.member import build, member


@member(
    task="ImageClassification",
    reads=("pictures",),
    inputs=PICTURES,
    example={
        "num_classes": 5,
        "config": TransformerConfig(dim=16, depth=2, heads=2, position="learned"),
        "image_size": 16,
        "patch_size": 8,
    },
    variants=(
        {"pooling": PoolConfig("mean")},
        {"pooling": PoolConfig("attention")},
        {"pooling": PoolConfig("class+mean", pooler="tanh")},
        {"config": TransformerConfig(dim=16, depth=2, heads=2, position="rotary")},
        {"distilled": True},
    ),
    classes=("head.", "distilled_head."),
    heads={"ImageRegression": {"num_classes": 1}},
    renamed={
        "pool": "pooling.kind",
        "pool_norm": "pooling.norm_after",
        "patch_bias": "patches.bias",
        "embedding_norm": "patches.norm",
    },
    complete=lambda model: bool(model.num_classes),
)
class ViT(nn.Module):
    """patches -> Transformer -> pooling -> classes (section 3.1, figure 1).

    Args:
        num_classes: 0 leaves the head out: the model gives pooled features.
        config: the stack; ``position`` is one of "learned" (the original), "sinusoidal", "rotary"
            and "none".
        image_size: pixels, ``side`` or ``(height, width)``; other sizes that divide into patches
            work too.
        patch_size: pixels, ``side`` or ``(height, width)``.
        patches: the tokens before patches, their stem, and where they stand.
        pooling: how all tokens become one vector, and that vector classes.
        distilled: one more token after the class token, read by a head of its own; logits are the
            mean of the two heads' (DeiT, Touvron et al. 2021, section 4).

    Raises:
        ValueError: a pooling that needs the class token without one, ``distilled`` with another
            pooling, or what the parts refuse.
    """

    def __init__(
        self,
        num_classes: int,
        config: TransformerConfig,
        image_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 16,
        *,
        patches: PatchConfig = PatchConfig(),
        pooling: PoolConfig = PoolConfig(),
        distilled: bool = False,
    ) -> None:
        super().__init__()
        kind = pooling.kind
        if kind in ("class", "class+mean") and not patches.class_token:
            raise ValueError(
                f"pooling.kind={kind!r} needs patches.class_token=True, or choose kind='mean'."
            )
        if distilled and (kind != "class" or pooling.norm_after or pooling.pooler):
            raise ValueError(
                "distilled=True reads two tokens: it needs pooling.kind='class' as it comes."
            )
        self.config, self.num_classes = over_patches(config), num_classes
        tokens = patches.register_tokens + distilled
        self.embedding = PatchEmbedding(
            self.config, image_size, patch_size, replace(patches, register_tokens=tokens)
        )
        self.image_size, self.patch_size = self.embedding.image_size, self.embedding.patch_size
        self.num_prefix_tokens = self.embedding.num_prefix_tokens
        final_norm = bool(self.config.final_norm)
        wanted = kind == "mean" if pooling.norm_after is None else pooling.norm_after
        late = final_norm and wanted
        self.pooling = replace(pooling, norm_after=late)
        self.transformer = Transformer(self.config.replace(final_norm=final_norm and not late))
        self.pool = Pooling(self.config, kind, self.num_prefix_tokens, norm=late)
        self.pooler = None if pooling.pooler is None else Pooler(self.pool.dim, pooling.pooler)
        self.head_dropout = nn.Dropout(pooling.head_dropout)
        self.head = self._new_head()
        self.distilled_head = self._new_head() if distilled else None

    def _new_head(self) -> nn.Module:
        if not self.num_classes:
            return nn.Identity()
        return class_head(self.pool.dim, self.num_classes, self.pooling.head_bias)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` -> logits ``(batch, classes)``."""
        return self.forward_head(self.forward_features(pixel_values))

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """All tokens ``(batch, prefix + patches, dim)``; normed, unless the norm is after pooling."""
        positions = self.embedding.coordinates(*pixel_values.shape[-2:])
        return self.transformer(self.embedding(pixel_values), positions=positions)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """``(batch, prefix + patches, dim)`` -> logits, or what they are made from ``(batch, dim)``.

        Distilled, that is the mean of the two tokens, of which each has a head.
        """
        pooled = self.pool(features)
        if self.pooler is not None:
            pooled = self.pooler(pooled)
        pooled = self.head_dropout(pooled)
        if self.distilled_head is None:
            return pooled if pre_logits else self.head(pooled)
        second = self.head_dropout(features[:, 1])
        if pre_logits:
            return (pooled + second) / 2
        return (self.head(pooled) + self.distilled_head(second)) / 2

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """``(rows, columns)`` of patches in a picture."""
        return self.embedding.grid(height, width)


def vit_base(
    num_classes: int = 1000,
    patch_size: int | Sequence[int] = 16,
    image_size: int | Sequence[int] = 224,
    **overrides: Any,
) -> ViT:
    """ViT-B, 86 M parameters.

    Args:
        overrides: arguments of :class:`ViT`, and fields of its configs: ``depth=6``, ``stem="conv"``.
    """
    base = {"dim": 768, "depth": 12, "heads": 12, "norm_eps": 1e-6, "position": "learned"}
    sizes = {"num_classes": num_classes, "image_size": image_size, "patch_size": patch_size}
    return build(ViT, {**sizes, **base, **overrides})


def vit_small(
    num_classes: int = 1000,
    patch_size: int | Sequence[int] = 16,
    image_size: int | Sequence[int] = 224,
    **overrides: Any,
) -> ViT:
    """ViT-S (Touvron et al. 2021), 22 M parameters; overrides as :func:`vit_base`."""
    small = {"dim": 384, "heads": 6}
    return vit_base(num_classes, patch_size, image_size, **{**small, **overrides})


def vit_tiny(
    num_classes: int = 1000,
    patch_size: int | Sequence[int] = 16,
    image_size: int | Sequence[int] = 224,
    **overrides: Any,
) -> ViT:
    """ViT-Ti (Touvron et al. 2021), 5.7 M parameters; overrides as :func:`vit_base`."""
    tiny = {"dim": 192, "heads": 3}
    return vit_base(num_classes, patch_size, image_size, **{**tiny, **overrides})


def dinov3_vit_small(
    num_classes: int = 0,
    patch_size: int | Sequence[int] = 16,
    image_size: int | Sequence[int] = 224,
    **overrides: Any,
) -> ViT:
    """DINOv3 ViT-S (Siméoni et al. 2025), 22 M parameters, as published without classes; overrides as
    :func:`vit_base`."""
    small = {
        "norm_eps": 1e-5,
        "position": "rotary",
        "rotary_base": 100.0,
        "coordinates": "centre",
        "key_bias": False,
        "layer_scale": 1.0,
        "register_tokens": 4,
    }
    return vit_small(num_classes, patch_size, image_size, **{**small, **overrides})
