"""A mixture of experts: each token goes through a few feed-forwards of many, chosen for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.feedforward import FeedForward


class Routing(NamedTuple):
    """What a layer's router said of the tokens of one forward pass."""

    probabilities: Tensor
    """``(batch, tokens, experts)``, in float32 at least."""
    chosen: Tensor
    """``(batch, tokens, experts_per_token)``."""


class Experts(nn.Module):
    """``sum over the chosen experts of weight * expert(x)`` (Shazeer et al. 2017; Mixtral, Jiang et al.
    2024, section 2.1), and of the shared ones, through which every token goes.

    Tokens are grouped by expert, each of which computes its own in one product; none is dropped.
    ``routing`` is what the last forward pass of training decided, for the loss that evens it out.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        assert config.ffn_dim is not None
        self.count, self.normalize = config.experts_per_token, config.normalize_routing
        self.router = nn.Linear(config.dim, config.experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(config) for _ in range(config.experts))
        self.shared = None
        if config.shared_experts is not None:
            self.shared = FeedForward(config, config.shared_experts * config.ffn_dim)
        self.routing: Routing | None = None

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, tokens, dim) -> (batch, tokens, dim)``."""
        logits = self.router(x)
        probabilities = logits.softmax(-1, dtype=torch.promote_types(x.dtype, torch.float32))
        weights, chosen = probabilities.topk(self.count, dim=-1)
        if self.normalize:
            weights = weights / weights.sum(-1, keepdim=True)
        self.routing = Routing(probabilities, chosen) if self.training else None
        mixed = self._mix(*(t.flatten(0, -2) for t in (x, chosen, weights))).view_as(x)
        return mixed if self.shared is None else mixed + self.shared(x)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "routing": None}  # copies and files hold no graph

    def _mix(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """``(tokens, dim)`` through ``chosen (tokens, count)`` experts, with their weights."""
        if torch.compiler.is_compiling():  # shapes must not depend on what is chosen: all of them
            each = torch.stack([expert(x) for expert in self.experts], dim=1)
            shares = weights.new_zeros(len(x), len(self.experts)).scatter(1, chosen, weights)
            return (each * shares[..., None].to(x.dtype)).sum(1)
        order = chosen.flatten().argsort(stable=True)
        sizes = chosen.flatten().bincount(minlength=len(self.experts)).tolist()
        tokens = order // self.count
        groups = x[tokens].split(sizes)
        computed = [
            # An expert that nothing chose takes part all the same: every process must see it.
            expert(group)
            for expert, group in zip(self.experts, groups, strict=True)
            if len(group) or self.training
        ]
        weighted = torch.cat(computed or [x]) * weights.flatten()[order, None].to(x.dtype)
        return torch.zeros_like(x).index_add(0, tokens, weighted.to(x.dtype))
