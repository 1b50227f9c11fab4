"""A new member from the core's parts, trained with nothing changed in the project.

    PYTHONPATH=examples family fit --config gpt/shapes --config examples/custom_member.yaml

Each token sees a running mean of all before it, then a few blocks: a model that no paper describes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from family import Block, Shared, TransformerConfig
from family.heads.language_model import language_model_head


class RunningMean(nn.Module):
    """The mean of this token and all before it, ``(batch, tokens, dim)``, in place of attention."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        count = torch.arange(1, x.shape[1] + 1, device=x.device)[:, None]
        return x.cumsum(1) / count


class MeanThenAttend(nn.Module):
    """A first block that averages, then blocks that attend; by the contract of language models."""

    def __init__(self, vocab_size: int, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocab_size, config.dim)
        self.first = Block(config, self_attention=RunningMean())
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head = language_model_head(config.dim, vocab_size)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits ``(batch, tokens, vocab)``."""
        x = self.first(self.embedding(input_ids))
        for block in self.blocks:
            x = block(x, Shared(mask=mask))
        return self.head(x)
