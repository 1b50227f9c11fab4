"""Next-token cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
"""Label of a position that does not count, as in PyTorch."""


def language_model_loss(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy over the tokens whose label is not ``IGNORE``.

    Args:
        logits: ``(batch, tokens, vocab)``.
        labels: ``(batch, tokens)``, the token that follows each position.
        label_smoothing: mass spread evenly over the vocabulary (Szegedy et al. 2016).
        reduction: "mean" over counted tokens, of none zero; "sum", to normalise over several batches; or "none",
            the loss of each, ``(batch * tokens,)``, 0 where it does not count.
    """
    working = torch.promote_types(logits.dtype, torch.float32)  # half precision loses the mean
    loss = F.cross_entropy(
        logits.flatten(0, 1).to(working),
        labels.flatten(),
        ignore_index=IGNORE,
        label_smoothing=label_smoothing,
        reduction="sum" if reduction == "mean" else reduction,
    )
    return loss / (labels != IGNORE).sum().clamp(min=1) if reduction == "mean" else loss
