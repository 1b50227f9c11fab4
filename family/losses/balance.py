"""How evenly a mixture uses its experts."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from family.core.experts import Experts


def balance_loss(model: nn.Module, mask: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
    """How unevenly the routers of a model used their experts in the last forward pass of training.

    That is ``experts * sum over experts of share of tokens * mean probability``, the mean over layers
    (Switch Transformer, Fedus et al. 2021, section 2.2): ``experts_per_token`` where all are used alike.
    Shares are of all processes together, so that their losses, weighted by tokens, add up to that of
    one process with all the tokens.

    Args:
        mask: ``(batch, tokens)``, True = a token; padding does not count.

    Returns:
        the loss, with gradients to the routers, and the largest share of tokens that any expert got,
        over what it would get if all were used alike; None for a model without experts.
    """
    layers = [m for m in model.modules() if isinstance(m, Experts) and m.routing is not None]
    if not layers:
        return None
    losses, largest = [], []
    for layer in layers:
        assert layer.routing is not None
        probabilities, chosen = layer.routing
        counted = torch.zeros_like(probabilities).scatter(-1, chosen, 1.0)
        if mask is not None:
            probabilities, counted = probabilities[mask], counted[mask]
        counts = counted.flatten(0, -2).sum(0)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
        shares = counts * layer.count / counts.sum().clamp(min=1)
        experts = probabilities.shape[-1]
        losses.append(experts * (shares * probabilities.flatten(0, -2).mean(0)).sum())
        largest.append(shares.max() * experts / layer.count)
    return torch.stack(losses).mean(), torch.stack(largest).max().detach()
