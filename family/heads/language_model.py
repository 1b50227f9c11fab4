"""From the vector of a token to the next one."""

from __future__ import annotations

from torch import Tensor, nn

from family.core.linear import Linear, linear


class LanguageModelHead(Linear):
    """Logits over the vocabulary, ``(..., dim) -> (..., vocab)``.

    Args:
        tied: the embedding whose table serves as weight (Press & Wolf 2017); None is a table of
            its own.
    """

    def __init__(
        self, dim: int, vocab_size: int, bias: bool = False, tied: nn.Embedding | None = None
    ) -> None:
        super().__init__(dim, vocab_size, bias)
        if tied is None:
            nn.init.normal_(self.weight, std=0.02)
        else:
            self.weight = tied.weight
        if bias:
            nn.init.zeros_(self.bias)

    def next_token(self, hidden: Tensor) -> Tensor:
        """Logits ``(batch, vocab)`` after the last of ``(batch, tokens, dim)``."""
        return linear(hidden[:, -1], self.weight, self.bias)
