"""Vectors of patches become pixels, or whatever a picture is made of."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from family.core.config import TransformerConfig
from family.core.init import init_linear, make_norm


class PatchHead(nn.Module):
    """A norm that a condition shifts and scales, a linear layer, and patches side by side (Peebles & Xie
    2023, section 3.2). It begins at zero.

    Args:
        config: of the stack before, with a ``condition_dim``.
        patch_size: ``(height, width)``.
        channels: of the picture.
    """

    def __init__(
        self, config: TransformerConfig, patch_size: tuple[int, int], channels: int
    ) -> None:
        super().__init__()
        assert config.condition_dim is not None
        self.patch_size, self.channels = patch_size, channels
        self.norm = make_norm(config, affine=False)
        self.modulation = nn.Linear(config.condition_dim, 2 * config.dim)
        self.projection = nn.Linear(config.dim, channels * patch_size[0] * patch_size[1])
        for layer in (self.modulation, self.projection):
            init_linear(layer, 0.0)

    def forward(self, x: Tensor, condition: Tensor, grid: tuple[int, int]) -> Tensor:
        """``(batch, rows * columns, dim)`` -> ``(batch, channels, height, width)``.

        Args:
            condition: ``(batch, condition_dim)``.
            grid: ``(rows, columns)`` of the patches.
        """
        shift, scale = self.modulation(F.silu(condition)).unsqueeze(1).chunk(2, dim=-1)
        x = self.projection(self.norm(x) * (1 + scale) + shift)
        (rows, columns), (down, across) = grid, self.patch_size
        x = x.view(-1, rows, columns, self.channels, down, across)
        return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, self.channels, rows * down, columns * across)
