"""From the vector of a token to the next one."""

from __future__ import annotations

from torch import nn

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
