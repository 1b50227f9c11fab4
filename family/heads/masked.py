"""From the vectors of masked tokens to the tokens that stood there."""

from __future__ import annotations

from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.functions import ACTIVATIONS
from family.core.init import init_linear, make_norm
from family.heads.language_model import language_model_head


class MaskedHead(nn.Module):
    """A dense layer, activation and norm before the table of the embedding, and a bias for each token
    (the "transform" of Devlin et al.'s own code).

    Args:
        config: of the stack before: ``dim``, ``activation``, the norm.
        tokens: the embedding whose table serves as the output's weight; where it is narrower than the
            stack, the dense layer goes down to its width (ELECTRA).
        bias: of the dense layer.
        activation: None is the config's.
    """

    def __init__(
        self,
        config: TransformerConfig,
        tokens: nn.Embedding,
        bias: bool = True,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        dim = tokens.embedding_dim
        self.dense = nn.Linear(config.dim, dim, bias)
        self.activation = ACTIVATIONS[activation or config.activation]
        self.norm = make_norm(config, dim)
        self.output = language_model_head(dim, tokens.num_embeddings, bias=True, tied=tokens)
        init_linear(self.dense)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim)`` -> logits ``(..., vocab)``."""
        return self.output(self.norm(self.activation(self.dense(x))))
