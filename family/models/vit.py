"""ViT: a picture is a sequence of patches (Dosovitskiy et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.heads.classifier import Pooler, Pooling, class_head
from family.inputs.patches import PatchEmbedding, over_patches
from family.models.examples import PICTURES
from family.models.member import member, split_overrides


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
    classes=("head.", "distilled_head."),
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
        pool: "class" takes the class token, "mean" the mean over patches, "class+mean" both side by
            side, "attention" a learned query that attends to patches.
        class_token, register_tokens, prefix_positions, stem, patch_bias, embedding_norm, channels,
            interpolation, coordinates, drop_rest: see :class:`~family.inputs.patches.PatchEmbedding`.
        pool_norm: the final norm stands after pooling instead of before; None is so for "mean", as
            timm has it.
        pooler: a dense layer with this activation before the classes: "tanh" (the representation
            layer of pre-training, section 3.1) or "relu".
        distilled: one more token after the class token, read by a head of its own; logits are the
            mean of the two heads' (DeiT, Touvron et al. 2021, section 4).
        head_bias, head_dropout: of the classes' linear layer.

    Raises:
        ValueError: a ``pool`` that needs the class token without one, ``distilled`` with another
            ``pool``, or what the parts refuse.
    """

    def __init__(
        self,
        num_classes: int,
        config: TransformerConfig,
        image_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 16,
        pool: str = "class",
        *,
        class_token: bool = True,
        register_tokens: int = 0,
        prefix_positions: bool | str = True,
        stem: str = "patch",
        patch_bias: bool = True,
        embedding_norm: bool = False,
        interpolation: str = "antialiased",
        coordinates: str = "index",
        drop_rest: bool = False,
        pool_norm: bool | None = None,
        pooler: str | None = None,
        distilled: bool = False,
        head_bias: bool = True,
        head_dropout: float = 0.0,
        channels: int = 3,
    ) -> None:
        super().__init__()
        if pool in ("class", "class+mean") and not class_token:
            raise ValueError(f"pool={pool!r} needs class_token=True, or choose pool='mean'.")
        if distilled and (pool != "class" or pool_norm or pooler):
            raise ValueError("distilled=True reads two tokens: it needs pool='class' as it comes.")
        self.config, self.num_classes = over_patches(config), num_classes
        self.embedding = PatchEmbedding(
            self.config,
            image_size,
            patch_size,
            channels=channels,
            class_token=class_token,
            register_tokens=register_tokens + distilled,
            prefix_positions=prefix_positions,
            stem=stem,
            bias=patch_bias,
            norm=embedding_norm,
            interpolation=interpolation,
            coordinates=coordinates,
            drop_rest=drop_rest,
        )
        self.image_size, self.patch_size = self.embedding.image_size, self.embedding.patch_size
        self.num_prefix_tokens = self.embedding.num_prefix_tokens
        final_norm = bool(self.config.final_norm)
        self.pool_norm = late = final_norm and (pool == "mean" if pool_norm is None else pool_norm)
        self.transformer = Transformer(self.config.replace(final_norm=final_norm and not late))
        self.pool = Pooling(self.config, pool, self.num_prefix_tokens, norm=late)
        self.pooler = None if pooler is None else Pooler(self.pool.dim, pooler)
        self.head_dropout = nn.Dropout(head_dropout)
        self.head = self._new_head(head_bias)
        self.distilled_head = self._new_head(head_bias) if distilled else None

    def _new_head(self, bias: bool) -> nn.Module:
        if not self.num_classes:
            return nn.Identity()
        return class_head(self.pool.dim, self.num_classes, bias=bias)

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
        overrides: fields of :class:`TransformerConfig`, and arguments of :class:`ViT`.
    """
    fields, own = split_overrides(overrides)
    base = {"dim": 768, "depth": 12, "heads": 12, "norm_eps": 1e-6, "position": "learned"}
    return ViT(num_classes, TransformerConfig(**{**base, **fields}), image_size, patch_size, **own)


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
