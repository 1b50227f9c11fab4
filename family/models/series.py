"""SeriesTransformer: a numeric series is a sequence of patches of steps."""

from __future__ import annotations

from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.heads.classifier import class_head
from family.heads.pooling import POOLINGS
from family.inputs.series import SeriesEmbedding
from family.models.examples import SERIES
from family.models.member import member

POOLS = ("mean", "max")


@member(
    task="Series",
    reads=("series",),
    inputs=SERIES,
    example={
        "num_classes": 5,
        "config": TransformerConfig(dim=16, depth=2, heads=2, position="rotary"),
        "channels": 3,
        "patch_size": 2,
    },
    variants=({"pool": "max"}, {"patch_size": 1}),
    classes=("head.",),
)
class SeriesTransformer(nn.Module):
    """patches of steps -> Transformer -> pooling -> classes or numbers; after PatchTST (Nie et al. 2023), but a
    patch has all channels.

    Args:
        num_classes: of the head: classes, or numbers: for each target as many as steps are foretold.
        config: the stack; its final norm stands before pooling. A learned or sinusoidal ``position`` has
            ``max_tokens`` places, rotary ones any number.
        channels: numbers of a step; of data with gaps twice as many, see
            :class:`~family.inputs.series.SeriesPreprocess`.
        patch_size: steps of a token: the more, the cheaper, and the less of the order within one is seen.
        pool: "mean" or "max" over all tokens.

    Raises:
        ValueError: an unknown ``pool``, or what the embedding refuses.
    """

    def __init__(
        self,
        num_classes: int,
        config: TransformerConfig,
        channels: int = 1,
        patch_size: int = 1,
        pool: str = "mean",
    ) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ValueError(f"pool={pool!r} is unknown; choose one of: {', '.join(POOLS)}.")
        self.config, self.num_classes, self.channels = config, num_classes, channels
        self.embedding = SeriesEmbedding(channels, config, patch_size)
        self.transformer = Transformer(config)
        self.pool = POOLINGS[pool]
        self.head = class_head(config.dim, num_classes)

    def forward(self, values: Tensor, step_mask: Tensor | None = None) -> Tensor:
        """``values (batch, steps, channels)``, ``step_mask (batch, steps)`` True = a step -> logits, or
        numbers, ``(batch, num_classes)``."""
        x, mask, _ = self.embedding(values, step_mask)
        return self.head(self.pool(self.transformer(x, mask=mask), mask))
