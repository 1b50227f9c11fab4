"""From the vector of a token to the next one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from family.core.init import init_linear


def language_model_head(
    dim: int, vocab_size: int, bias: bool = False, tied: nn.Embedding | None = None
) -> nn.Linear:
    """Logits over the vocabulary, ``(..., dim) -> (..., vocab)``.

    Args:
        tied: the embedding whose table serves as weight (Press & Wolf 2017); None is a table of
            its own.
    """
    head = nn.Linear(dim, vocab_size, bias)
    if tied is None:
        init_linear(head)
    else:
        head.weight = tied.weight
    if bias:
        nn.init.zeros_(head.bias)
    return head


def cap_logits(logits: Tensor, cap: float | None) -> Tensor:
    """Logits, bent to stay under ``cap`` (Gemma 2, section 2); None leaves them."""
    return logits if cap is None else cap * torch.tanh(logits / cap)
