"""From the vectors of masked tokens to the tokens that stood there."""

from __future__ import annotations

from torch import Tensor, nn

from family.core.activation import ACTIVATIONS
from family.core.config import TransformerConfig
from family.core.linear import Linear
from family.core.norm import make_norm
from family.heads.language_model import LanguageModelHead


class MaskedHead(nn.Module):
    """A dense layer, activation and norm before the table of the embedding, and a bias for each token
    (the "transform" of Devlin et al.'s own code).

    Args:
        config: of the stack before: ``dim``, ``activation``, the norm.
        tokens: the embedding whose table serves as the output's weight.
    """

    def __init__(self, config: TransformerConfig, tokens: nn.Embedding) -> None:
        super().__init__()
        self.dense = Linear(config.dim, config.dim)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = make_norm(config.norm, config.dim, config.norm_eps)
        self.output = LanguageModelHead(config.dim, tokens.num_embeddings, bias=True, tied=tokens)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim)`` -> logits ``(..., vocab)``."""
        return self.output(self.norm(self.activation(self.dense(x))))
