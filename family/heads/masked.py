"""From the vectors of tokens to those that stood there, or to whether these did."""

from __future__ import annotations

from typing import Any

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

    Raises:
        ValueError: an unknown ``activation``.
    """

    def __init__(
        self,
        config: TransformerConfig,
        tokens: nn.Embedding,
        bias: bool = True,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        dim, name = tokens.embedding_dim, activation or config.activation
        if name not in ACTIVATIONS:
            choices = ", ".join(ACTIVATIONS)
            raise ValueError(f"masked_activation={name!r} is unknown; choose one of: {choices}.")
        self.dense = nn.Linear(config.dim, dim, bias)
        self.activation = ACTIVATIONS[name]
        self.norm = make_norm(config, dim)
        self.output = language_model_head(dim, tokens.num_embeddings, bias=True, tied=tokens)
        init_linear(self.dense)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim)`` -> logits ``(..., vocab)``."""
        return self.output(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """``(..., dim)`` -> what the output turns into logits, as wide as the embedding."""
        return self.norm(self.activation(self.dense(x)))


class ReplacedHead(nn.Module):
    """Whether each token stands there in place of another: a dense layer, activation and one logit
    (Clark et al. 2020, section 2, as in the authors' code).

    Args:
        config: of the stack before: ``dim``, ``activation``.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.dim, config.dim)
        self.activation = ACTIVATIONS[config.activation]
        self.output = nn.Linear(config.dim, 1)
        for layer in (self.dense, self.output):
            init_linear(layer)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim)`` -> logits ``(...)``, over 0 where the token seems replaced."""
        return self.output(self.activation(self.dense(x))).squeeze(-1)


def logits_at(
    model: Any,
    where: Tensor,
    input_ids: Tensor,
    mask: Tensor | None = None,
    loss: Any = None,
    **more: Tensor,
) -> Tensor:
    """What a masked language model says stood at some places, ``(places, vocab)``; or the loss asked for.

    Where the model has ``encode`` and ``masked_logits``, the head is computed at these places alone.

    Args:
        where: ``(batch, tokens)``, True = one of the places.
        input_ids, mask: ``(batch, tokens)``; ``more`` of what the model takes, by name.
        loss: a :class:`~family.losses.token_loss.TokenLoss` of the labels of these places, in the place of
            logits.
    """
    if hasattr(model, "masked_logits"):
        return model.masked_logits(model.encode(input_ids, mask, **more)[where], loss)
    logits = model(input_ids, mask, **more)[where]
    return logits if loss is None else loss.of(logits)
