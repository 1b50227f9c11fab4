"""Fusion: one stack over words and patches (ViLT, Kim et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.heads.classifier import Pooler, wide_class_head
from family.heads.pooling import pool_first
from family.inputs.patches import PatchConfig, PatchEmbedding
from family.inputs.text import TextEmbedding, token_positions
from family.models.examples import QUESTIONS
from family.models.member import build, member

POSITIONS = ("none", "sinusoidal", "learned")


@member(
    task="VisualQuestions",
    reads=("text", "pictures"),
    inputs=QUESTIONS,
    example={
        "vocab_size": 40,
        "config": TransformerConfig(dim=16, depth=2, heads=2, position="learned", max_tokens=32),
        "num_classes": 5,
        "image_size": 16,
        "patch_size": 8,
    },
    variants=(
        {"pooler": None, "patches": PatchConfig(interpolation="aligned", class_token=False)},
    ),
    classes=("head.",),
    complete=lambda model: bool(model.num_classes),
)
class Fusion(nn.Module):
    """words, then a class token and patches -> Transformer -> classes of the two together: answers to
    questions, say (section 3, figure 3).

    Args:
        vocab_size: tokens in the vocabulary.
        config: the stack, not causal; ``position`` is "learned" in everything published,
            "sinusoidal" or "none".
        num_classes: 0 leaves the head out: the model gives the pooled pair.
        image_size, patch_size: pixels, ``side`` or ``(height, width)``; pictures of other sizes that
            divide into patches work too, in one batch as well.
        token_types: segments of a text that the embedding tells apart; 0 is none.
        pooler: the dense layer between the first token and the classes: "tanh" (ViLT), "relu", or None
            for no such layer.
        patches: the tokens before patches, their stem, and where they stand.

    Raises:
        ValueError: a causal config, one with cross-attention or with another ``position``, or what the
            parts refuse.
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        *,
        num_classes: int = 0,
        image_size: int | Sequence[int] = 384,
        patch_size: int | Sequence[int] = 32,
        token_types: int = 2,
        pooler: str | None = "tanh",
        patches: PatchConfig = PatchConfig(interpolation="aligned"),
    ) -> None:
        super().__init__()
        if config.causal or config.cross_attention:
            raise ValueError(
                "Fusion reads words and patches both ways, in one stack: its config needs causal=False "
                "and cross_attention=False."
            )
        if config.position not in POSITIONS:
            raise ValueError(
                f"position={config.position!r} is not for words and patches in one stack, which take "
                f"one of: {', '.join(POSITIONS)}."
            )
        self.config, self.vocab_size, self.num_classes = config, vocab_size, num_classes
        self.words = TextEmbedding(vocab_size, config, token_types=token_types, norm=True)
        self.patches = PatchEmbedding(config, image_size, patch_size, patches)
        self.image_size, self.patch_size = self.patches.image_size, self.patches.patch_size
        self.kinds = nn.Embedding(2, config.dim)
        nn.init.normal_(self.kinds.weight, std=0.02 if config.init_std is None else config.init_std)
        self.transformer = Transformer(config)
        self.pooler = None if pooler is None else Pooler(config.dim, pooler)
        self.head = wide_class_head(config.dim, num_classes) if num_classes else nn.Identity()

    def encode(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        mask: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        token_types: Tensor | None = None,
    ) -> Tensor:
        """All tokens ``(batch, words + prefix + patches, dim)``, patches row by row.

        Args:
            pixel_values: ``(batch, channels, height, width)``.
            input_ids: ``(batch, words)``.
            mask: ``(batch, words)``, True = a token; padding may stand left or right.
            pixel_mask: ``(batch, height, width)``, True = picture, which stands at the top left; None =
                all of it. A padded picture is read as it would be alone.
            token_types: ``(batch, words)``, the segment of each token; None is 0 for all.

        Raises:
            ValueError: not one text a picture, or what the embeddings refuse.
        """
        if pixel_values.shape[0] != input_ids.shape[0]:
            raise ValueError(
                f"{len(pixel_values)} pictures need as many texts, not {len(input_ids)}."
            )
        words = self.words(input_ids, token_positions(input_ids, mask), token_types)
        seen = None if pixel_mask is None else self.patches.seen(pixel_mask)
        patches = self.patches(pixel_values, seen)
        kinds = self.kinds.weight
        x = torch.cat([words + kinds[0], patches + kinds[1]], dim=1)
        return self.transformer(x, mask=both(input_ids, mask, patches, seen))

    def pooled(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The first word through the pooler, ``(batch, tokens, dim)`` -> ``(batch, dim)``.

        Args:
            mask: ``(batch, words)``; needed only where padding stands left.
        """
        first = pool_first(tokens, mask)
        return first if self.pooler is None else self.pooler(first)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        mask: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        token_types: Tensor | None = None,
    ) -> Tensor:
        """Logits ``(batch, classes)``; without classes the pooled pair ``(batch, dim)``. Arguments as
        :meth:`encode`'s."""
        tokens = self.encode(pixel_values, input_ids, mask, pixel_mask, token_types)
        return self.head(self.pooled(tokens, mask))


def both(
    input_ids: Tensor, mask: Tensor | None, patches: Tensor, seen: Tensor | None
) -> Tensor | None:
    """What is a word or a patch, ``(batch, words + prefix + patches)``; None where all are."""
    if mask is None and seen is None:
        return None
    if mask is None:
        mask = torch.ones_like(input_ids, dtype=torch.bool)
    if seen is None:
        return F.pad(mask, (0, patches.shape[1]), value=True)
    prefix = patches.shape[1] - seen[0].numel()
    return torch.cat([F.pad(mask, (0, prefix), value=True), seen.flatten(1)], dim=1)


def vilt_base(vocab_size: int = 30_522, num_classes: int = 3129, **overrides: Any) -> Fusion:
    """ViLT-B/32, 118 M parameters, for the answers of VQA v2.

    Args:
        overrides: arguments of :class:`Fusion`, and fields of its configs.
    """
    base = {
        "dim": 768,
        "depth": 12,
        "heads": 12,
        "norm_eps": 1e-12,
        "position": "learned",
        "max_tokens": 40,
    }
    sizes = {"vocab_size": vocab_size, "num_classes": num_classes}
    return build(Fusion, {**sizes, **base, **overrides})
