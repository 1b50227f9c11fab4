"""ViT: a picture is a sequence of patches (Dosovitskiy et al. 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.heads.classifier import ClassHead, Pooling
from family.inputs.patches import PatchEmbedding, over_patches


class ViT(nn.Module):
    """patches -> Transformer -> pooling -> classes (section 3.1, figure 1).

    Args:
        num_classes: 0 leaves the head out: the model gives pooled features.
        config: the stack; ``position`` is one of "learned" (the original), "sinusoidal", "rotary"
            and "none".
        image_size: pixels, ``side`` or ``(height, width)``; other sizes that divide into patches
            work too.
        patch_size: pixels, ``side`` or ``(height, width)``.
        pool: "class" takes the class token, "mean" the mean over patches, "attention" a learned
            query that attends to patches.
        class_token, register_tokens, prefix_positions, stem, patch_bias, embedding_norm, channels:
            see :class:`~family.inputs.patches.PatchEmbedding`.
        pool_norm: the final norm stands after pooling instead of before; None is so for "mean", as
            timm has it.
        head_bias, head_dropout: of the classes' linear layer.

    Raises:
        ValueError: ``pool="class"`` without a class token, or what the parts refuse.
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
        prefix_positions: bool = True,
        stem: str = "patch",
        patch_bias: bool = True,
        embedding_norm: bool = False,
        pool_norm: bool | None = None,
        head_bias: bool = True,
        head_dropout: float = 0.0,
        channels: int = 3,
    ) -> None:
        super().__init__()
        if pool == "class" and not class_token:
            raise ValueError("pool='class' needs class_token=True, or choose pool='mean'.")
        self.config, self.num_classes = over_patches(config), num_classes
        self.embedding = PatchEmbedding(
            self.config,
            image_size,
            patch_size,
            channels=channels,
            class_token=class_token,
            register_tokens=register_tokens,
            prefix_positions=prefix_positions,
            stem=stem,
            bias=patch_bias,
            norm=embedding_norm,
        )
        self.image_size, self.patch_size = self.embedding.image_size, self.embedding.patch_size
        self.num_prefix_tokens = self.embedding.num_prefix_tokens
        final_norm = bool(self.config.final_norm)
        late = final_norm and (pool == "mean" if pool_norm is None else pool_norm)
        self.transformer = Transformer(self.config.replace(final_norm=final_norm and not late))
        self.pool = Pooling(self.config, pool, self.num_prefix_tokens, norm=late)
        self.head_dropout = nn.Dropout(head_dropout)
        self.head: nn.Module = nn.Identity()
        if num_classes:
            self.head = ClassHead(config.dim, num_classes, bias=head_bias)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """``(batch, channels, height, width)`` -> logits ``(batch, classes)``."""
        return self.forward_head(self.forward_features(pixel_values))

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """All tokens ``(batch, prefix + patches, dim)``; normed, unless the norm is after pooling."""
        positions = self.embedding.coordinates(*pixel_values.shape[-2:])
        return self.transformer(self.embedding(pixel_values), positions=positions)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """``(batch, prefix + patches, dim)`` -> logits, or what they are made from ``(batch, dim)``."""
        pooled = self.head_dropout(self.pool(features))
        return pooled if pre_logits else self.head(pooled)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """``(rows, columns)`` of patches in a picture."""
        return self.embedding.grid(height, width)


def split_overrides(overrides: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of :class:`TransformerConfig`, and the rest: arguments of the model."""
    names = {field.name for field in dataclasses.fields(TransformerConfig)}
    fields = {name: value for name, value in overrides.items() if name in names}
    return fields, {name: value for name, value in overrides.items() if name not in names}


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
