"""What a model finds of tokens that stand there: log-probabilities, and how sure it is."""

from __future__ import annotations

import torch
from torch import Tensor

from family.losses.language_model import IGNORE


def full(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def token_log_probs(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of labels, ``(batch, tokens)``, 0 where the label is ``IGNORE``; in float32 at
    least.

    Args:
        logits: ``(batch, tokens, vocab)``.
        labels: ``(batch, tokens)``, the token that follows each position.
        temperature: that tokens are drawn with.
    """
    logits = full(logits)
    if temperature != 1:
        logits = logits / temperature
    counts = labels != IGNORE
    chosen = logits.gather(-1, labels.masked_fill(~counts, 0).unsqueeze(-1)).squeeze(-1)
    return (chosen - logits.logsumexp(-1)).masked_fill(~counts, 0.0)


def token_entropy(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """The entropy of what may follow, in nats ``(batch, tokens)``, 0 where the label is ``IGNORE``."""
    logits = full(logits) / temperature
    logs = logits.log_softmax(-1)
    return -(logs.exp() * logs).nan_to_num().sum(-1).masked_fill(labels == IGNORE, 0.0)
