"""The feed-forward sublayer, plain or gated."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.functions import ACTIVATIONS
from family.core.init import fused


class FeedForward(nn.Module):
    """Two linear layers around an activation (Vaswani et al. 2017, section 3.3).

    Gated, the first layer is twice as wide and holds gate and value in one product:
    ``down(activation(gate) * value)`` (Shazeer 2020).

    Args:
        ffn_dim: hidden width; None is the config's.

    Example:
        >>> FeedForward(TransformerConfig(dim=64, heads=4))
        FeedForward(
          (up): Linear(in_features=64, out_features=256, bias=True)
          (down): Linear(in_features=256, out_features=64, bias=True)
        )
    """

    def __init__(self, config: TransformerConfig, ffn_dim: int | None = None) -> None:
        super().__init__()
        ffn_dim = config.ffn_dim if ffn_dim is None else ffn_dim
        assert ffn_dim is not None
        self.gated = config.gated
        parts = 2 if config.gated else 1
        self.up = fused(config.dim, parts * ffn_dim, config.bias, parts)
        self.down = nn.Linear(ffn_dim, config.dim, config.bias)
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = config.ffn_dropout

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim) -> (..., dim)``."""
        hidden = self.up(x)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = self.activation(gate) * value
        else:
            hidden = self.activation(hidden)
        return self.down(F.dropout(hidden, self.dropout) if self.training else hidden)
