"""A model of one's own on numeric series, of no paper, trained by the task that is there.

    PYTHONPATH=examples family fit --config series/shapes --config examples/time_series.yaml
    PYTHONPATH=examples family classify RUN series.csv

A convolution sees five steps at a time and hands on every second; then the blocks of the core attend.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from family import Transformer, TransformerConfig


class ConvolveThenAttend(nn.Module):
    """By the contract of the task: ``model(values, step_mask)`` gives ``(batch, num_classes)``.

    Args:
        num_classes: the first one, which the data decide: classes, or the numbers that are given.
        config: the stack.
        channels: of a step; what the data decide beside the first has a default here.
    """

    def __init__(self, num_classes: int, config: TransformerConfig, channels: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv1d(channels, config.dim, kernel_size=5, stride=2, padding=2)
        self.transformer = Transformer(config)
        self.head = nn.Linear(config.dim, num_classes)

    def forward(self, values: Tensor, step_mask: Tensor | None = None) -> Tensor:
        """``values (batch, steps, channels)``, zeros behind shorter series; ``step_mask (batch, steps)``."""
        if step_mask is None:
            step_mask = torch.ones_like(values[..., 0], dtype=torch.bool)
        values = values.masked_fill(~step_mask[..., None], 0.0)
        x = self.stem(values.transpose(1, 2)).transpose(1, 2)  # (batch, half the steps, dim)
        mask = step_mask[:, ::2]
        x = self.transformer(x, mask=mask)
        weights = mask[..., None].to(x.dtype)  # the mean over what is no padding
        return self.head((x * weights).sum(1) / weights.sum(1).clamp(min=1))
