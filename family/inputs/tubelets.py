"""Clips become tokens: tubelets, patches that last some frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.inputs.patches import pair
from family.inputs.position import sinusoidal

POSITIONS = ("none", "sinusoidal")


class TubeletEmbedding(nn.Module):
    """Tubelets projected (Arnab et al. 2021, section 3.2), sine positions over all of them added,
    dropout (VideoMAE, Tong et al. 2022).

    Args:
        config: of the stack that follows: ``dim``, ``dropout``; ``position`` is "sinusoidal" (waves of
            a token's number in the whole clip) or "none".
        frames: of a clip.
        tubelet_size: frames that a tubelet lasts.
        image_size: pixels, ``side`` or ``(height, width)``.
        patch_size: pixels, ``side`` or ``(height, width)``.

    Raises:
        ValueError: sizes that do not divide into tubelets, or another position, in one sentence.
    """

    def __init__(
        self,
        config: TransformerConfig,
        frames: int = 16,
        tubelet_size: int = 2,
        image_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 16,
        *,
        channels: int = 3,
    ) -> None:
        super().__init__()
        if config.position not in POSITIONS:
            raise ValueError(
                f"position={config.position!r} is not for tubelets, which take one of: "
                f"{', '.join(POSITIONS)}."
            )
        self.clip = (frames, channels, *pair(image_size))
        self.tubelet = (tubelet_size, *pair(patch_size))
        sides = (frames, *pair(image_size))
        if min(frames, tubelet_size, channels) < 1 or any(map(int.__mod__, sides, self.tubelet)):
            raise ValueError(
                f"a clip of {frames} frames of {sides[1]} x {sides[2]} pixels does not divide into "
                f"tubelets of {' x '.join(map(str, self.tubelet))}: its sides must be multiples of "
                "theirs."
            )
        self.grid = tuple(map(int.__floordiv__, sides, self.tubelet))
        self.projection = nn.Conv3d(channels, config.dim, self.tubelet, self.tubelet)
        nn.init.normal_(self.projection.weight, std=self.projection.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.projection.bias)  # type: ignore[arg-type]
        self.dim = config.dim
        waves = self._waves() if config.position == "sinusoidal" else None
        self.register_buffer("table", waves, persistent=False)
        self.table: Tensor | None
        self.dropout = nn.Dropout(config.dropout)

    def _waves(self) -> Tensor:
        waves = sinusoidal(torch.arange(math.prod(self.grid)), self.dim)
        # Sine and cosine of a wave stand side by side.
        return torch.stack(waves.chunk(2, dim=-1), dim=-1).flatten(-2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TubeletEmbedding:
        """As any module; but a model that was bfloat16 and is float32 again has the exact table."""
        super()._apply(fn, recurse)
        if self.table is not None:
            self.table = self._waves().to(self.table)
        return self

    def forward(self, pixel_values: Tensor) -> Tensor:
        """``(batch, frames, channels, height, width) -> (batch, tubelets, dim)``, the first frames first,
        each row by row.

        Raises:
            ValueError: a clip of other sizes: the waves would say other places.
        """
        if pixel_values.shape[1:] != self.clip:
            frames, channels, height, width = self.clip
            raise ValueError(
                f"the model takes clips (batch, {frames}, {channels}, {height}, {width}), frames before "
                f"channels, not {tuple(pixel_values.shape)}."
            )
        x = self.projection(pixel_values.transpose(1, 2)).flatten(2).transpose(1, 2)
        x = x.to(self.projection.weight.dtype)  # under autocast, as embeddings of text
        return self.dropout(x if self.table is None else x + self.table.to(x.dtype))
