"""How evenly a mixture uses its experts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from family.core.experts import Experts


def balance_loss(model: nn.Module, mask: Tensor | None = None) -> tuple[Tensor, Tensor] | None:
    """How unevenly the routers of a model used their experts in the last forward pass of training.

    That is ``experts * sum over experts of share of tokens * mean probability``, the mean over layers
    (Switch Transformer, Fedus et al. 2021, section 2.2): ``experts_per_token`` where all are used alike.

    Args:
        mask: ``(batch, tokens)``, True = a token; padding does not count.

    Returns:
        the loss, with gradients to the routers, and the largest share of tokens that any expert got,
        over what it would get if all were used alike; None for a model without experts.
    """
    losses, largest = [], []
    for layer in model.modules():
        if not isinstance(layer, Experts) or layer.routing is None:
            continue
        probabilities, chosen = layer.routing
        experts = probabilities.shape[-1]
        counted = torch.zeros_like(probabilities).scatter(-1, chosen, 1.0)
        if mask is None:
            shares, means = counted.flatten(0, -2).mean(0), probabilities.flatten(0, -2).mean(0)
        else:
            shares, means = counted[mask].mean(0), probabilities[mask].mean(0)
        losses.append(experts * (shares * means).sum())
        largest.append(shares.max() * experts / layer.count)
    if not losses:
        return None
    return torch.stack(losses).mean(), torch.stack(largest).max().detach()
