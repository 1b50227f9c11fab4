"""VideoViT: a clip is a sequence of tubelets (VideoMAE, Tong et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.heads.classifier import Pooling, class_head
from family.inputs.tubelets import TubeletEmbedding
from family.models.examples import CLIPS
from family.models.member import build, member

POOL_EPS = 1e-5
"""Of the norm after pooling, whatever that of the stack's norms: so it was published."""


@member(
    task="VideoClassification",
    reads=("video",),
    inputs=CLIPS,
    example={
        "num_classes": 5,
        "config": TransformerConfig(dim=16, depth=2, heads=2, position="sinusoidal"),
        "frames": 4,
        "image_size": 16,
        "patch_size": 8,
    },
    variants=({"pool": "class"},),
    classes=("head.",),
    complete=lambda model: bool(model.num_classes),
)
class VideoViT(nn.Module):
    """tubelets -> Transformer -> pooling -> classes, all tokens at once ("joint space-time attention").

    Args:
        num_classes: 0 leaves the head out: the model gives pooled features.
        config: the stack; ``position`` is "sinusoidal" (VideoMAE) or "none".
        frames: of a clip.
        tubelet_size: frames that a tubelet lasts.
        image_size, patch_size: pixels, ``side`` or ``(height, width)``.
        pool: "mean" over all tokens, the final norm after it, or "class", the first token as it comes
            from the norm.
        head_dropout: before the classes' linear layer.

    Raises:
        ValueError: an unknown ``pool``, or what the embedding refuses.
    """

    def __init__(
        self,
        num_classes: int,
        config: TransformerConfig,
        frames: int = 16,
        tubelet_size: int = 2,
        image_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 16,
        pool: str = "mean",
        *,
        head_dropout: float = 0.0,
        channels: int = 3,
    ) -> None:
        super().__init__()
        if pool not in ("mean", "class"):
            raise ValueError(f"pool={pool!r} is unknown; choose one of: mean, class.")
        self.config, self.num_classes, self.frames = config, num_classes, frames
        self.embedding = TubeletEmbedding(
            config, frames, tubelet_size, image_size, patch_size, channels=channels
        )
        late = bool(config.final_norm) and pool == "mean"
        self.transformer = Transformer(config.replace(final_norm=config.final_norm and not late))
        self.pool = Pooling(config.replace(norm_eps=POOL_EPS), pool, prefix_tokens=0, norm=late)
        self.head_dropout = nn.Dropout(head_dropout)
        self.head = class_head(config.dim, num_classes) if num_classes else nn.Identity()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """``(batch, frames, channels, height, width)`` -> logits ``(batch, classes)``."""
        return self.forward_head(self.forward_features(pixel_values))

    def forward_features(self, pixel_values: Tensor) -> Tensor:
        """All tokens ``(batch, tubelets, dim)``; normed, unless the norm is after pooling."""
        return self.transformer(self.embedding(pixel_values))

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """``(batch, tubelets, dim)`` -> logits, or what they are made from ``(batch, dim)``."""
        pooled = self.head_dropout(self.pool(features))
        return pooled if pre_logits else self.head(pooled)


def videomae_base(num_classes: int = 400, frames: int = 16, **overrides: Any) -> VideoViT:
    """VideoMAE ViT-B, 86 M parameters.

    Args:
        overrides: arguments of :class:`VideoViT`, and fields of its config.
    """
    base = {
        "dim": 768,
        "depth": 12,
        "heads": 12,
        "norm_eps": 1e-12,
        "key_bias": False,
        "position": "sinusoidal",
    }
    return build(VideoViT, {"num_classes": num_classes, "frames": frames, **base, **overrides})
