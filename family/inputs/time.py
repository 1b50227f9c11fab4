"""A time becomes a vector."""

from __future__ import annotations

from torch import Tensor, nn

from family.core.init import init_linear
from family.inputs.position import sinusoidal

WAVES, SCALE = 256, 1000
"""Channels of waves, and how far 0..1 reaches on their scale, as in DiT's code."""


class TimeEmbedding(nn.Module):
    """Waves of a time in 0..1 through two linear layers (Peebles & Xie 2023, section 4).

    Args:
        dim: of the result.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WAVES, dim), nn.Linear(dim, dim)
        for layer in (self.up, self.down):
            init_linear(layer)

    def forward(self, time: Tensor) -> Tensor:
        """``(batch,) -> (batch, dim)``."""
        waves = sinusoidal(SCALE * time, WAVES).to(self.up.weight.dtype)
        return self.down(nn.functional.silu(self.up(waves)))
