"""LSTM language models (Zaremba et al. 2014)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from family.baselines.lstm import LSTM, LSTMState, ScaledEmbedding, State
from family.generation import sampled_stream, search_or_sample
from family.generation.sampling import Sampling
from family.heads.language_model import language_model_head
from family.losses.token_loss import TokenLoss
from family.models.examples import TEXT
from family.models.member import member


@member(
    task="LanguageModeling",
    reads=("text",),
    inputs=TEXT,
    example={"vocab_size": 40, "dim": 16},
)
class LSTMLanguageModel(nn.Module):
    """embed -> LSTM -> language-model head (section 3).

    Args:
        vocab_size: tokens in the vocabulary.
        dim: width of embedding and LSTM.
        depth: layers.
        dropout: on embeddings, between layers and before the head (section 3.2).
        tie_embeddings: the head shares the table of the embedding (Press & Wolf 2017).
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int = 256,
        depth: int = 2,
        dropout: float = 0.0,
        tie_embeddings: bool = True,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.embedding = ScaledEmbedding(vocab_size, dim)
        self.lstm = LSTM(dim, depth, dropout)
        self.dropout = nn.Dropout(dropout)
        self.head = language_model_head(
            dim, vocab_size, tied=self.embedding if tie_embeddings else None
        )

    def read(self, input_ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, State]:
        """Outputs ``(batch, tokens, dim)``, and the state after the last token of each row."""
        return self.lstm.read(self.dropout(self.embedding(input_ids)), mask)

    def features(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(batch, tokens)`` -> ``(batch, tokens, dim)``, what the head turns into logits."""
        return self.dropout(self.read(input_ids, mask)[0])

    def forward(
        self, input_ids: Tensor, mask: Tensor | None = None, loss: TokenLoss | None = None
    ) -> Tensor:
        """Logits ``(batch, tokens, vocab)`` of the token after each; or the loss that is asked for.

        Args:
            input_ids: ``(batch, tokens)``.
            mask: ``(batch, tokens)``, True = a token; padding may stand left or right.
        """
        features = self.features(input_ids, mask)
        return self.head(features) if loss is None else loss(self.head, features)

    def prefill(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        *,
        capacity: int | None = None,
        branches: int = 1,
    ) -> tuple[Tensor, LSTMState]:
        """Read the prompt: logits ``(batch, vocab)`` of its next token, and the state.

        Args:
            capacity, branches: what a cache of keys would need; a state is always of one size.

        Raises:
            ValueError: the prompt is empty.
        """
        if input_ids.shape[1] == 0:
            raise ValueError("the prompt is empty: it needs one token at least.")
        _, state = self.read(input_ids, mask)
        # The hidden state of the last layer is the output at the last token.
        return self.head(self.dropout(state[0][-1])), LSTMState(state)

    def decode(self, tokens: Tensor, cache: LSTMState) -> Tensor:
        """One more token for each row ``(batch)`` -> logits ``(batch, vocab)`` of the next.

        Or for each branch of a row: ``(batch, branches)`` -> ``(batch, branches, vocab)``.
        """
        x = self.dropout(self.embedding(tokens.reshape(-1, 1)))
        hidden, cache.state = self.lstm(x, cache.state)
        return self.head(self.dropout(hidden)).view(*tokens.shape, -1)

    def generate(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        *,
        max_new_tokens: int | None = None,
        beams: int | None = None,
        sampling: Sampling | None = None,
        **options: Any,
    ) -> Tensor:
        """Continue prompts ``(batch, tokens)``: the new tokens ``(batch, at most max_new_tokens)``.

        Args:
            options: see :func:`family.generation.choose.chosen`, which tells what None is too;
                ``generator`` of the random numbers.
        """
        options.update(max_new_tokens=max_new_tokens, beams=beams, sampling=sampling)
        begin: dict[str, Any] = {"prompt": input_ids, "prompt_mask": mask}
        begin["begun"] = input_ids.shape[1]
        return search_or_sample(self, (input_ids, mask), **begin, **options)

    def stream(
        self, input_ids: Tensor, mask: Tensor | None = None, **options: Any
    ) -> Iterator[Tensor]:
        """As :meth:`generate`, one token ``(batch)`` at a time, as soon as it is known."""
        begin: dict[str, Any] = {"prompt": input_ids, "prompt_mask": mask}
        begin["begun"] = input_ids.shape[1]
        return sampled_stream(self, (input_ids, mask), **begin, **options)


def lstm_medium(vocab_size: int = 10_000, **overrides: Any) -> LSTMLanguageModel:
    """Zaremba et al. 2014, section 4.1, "medium": 2 layers, 650 wide, 20 M parameters.

    Args:
        overrides: arguments of :class:`LSTMLanguageModel`.
    """
    medium: dict[str, Any] = {"dim": 650, "depth": 2, "dropout": 0.5, "tie_embeddings": False}
    return LSTMLanguageModel(vocab_size, **{**medium, **overrides})


def lstm_large(vocab_size: int = 10_000, **overrides: Any) -> LSTMLanguageModel:
    """Zaremba et al. 2014, section 4.1, "large": 2 layers, 1,500 wide, 66 M parameters.

    Args:
        overrides: arguments of :class:`LSTMLanguageModel`.
    """
    return lstm_medium(vocab_size, **{"dim": 1500, "dropout": 0.65, **overrides})
