"""LSTM encoder-decoders: one vector for a sentence (Sutskever et al. 2014), or attention to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from family.baselines.lstm import LSTM, LSTMState, ScaledEmbedding, State
from family.core.attention import attend
from family.core.init import init_linear
from family.core.mask import Shared, allow_context
from family.heads.language_model import language_model_head
from family.models.encoder_decoder import EncoderDecoder
from family.models.examples import PAIRS
from family.models.member import member


class GeneralAttention(nn.Module):
    """The global attention of Luong et al. 2015, section 3.1, with the "general" score.

    The decoder's LSTM does not read what it attended to, as it does in Bahdanau et al. 2015 (and in
    Luong's "input feeding"): so all of a target goes through it in one call when training.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, dim, bias=False)
        self.combine = nn.Linear(2 * dim, dim, bias=False)
        for layer in (self.score, self.combine):
            init_linear(layer, None)

    def forward(self, hidden: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """The attentional vectors ``tanh(W [context; hidden])``, ``(batch, tokens, dim)``.

        Args:
            hidden: ``(batch, tokens, dim)``, of the decoder.
            context: ``(batch, source tokens, dim)``, zero where nothing stands.
            mask: ``(batch, source tokens)``, True = a token.
        """
        queries, keys = self.score(hidden)[:, None], context[:, None]
        allowed = allow_context(Shared(context_mask=mask), queries.dtype)
        read = attend(queries, keys, keys, allowed, scale=1.0)
        return torch.tanh(self.combine(torch.cat([read[:, 0], hidden], dim=-1)))


@member(
    task="Translation",
    reads=("text",),
    inputs=PAIRS,
    example={"vocab_size": 40, "dim": 16},
    variants=({"attention": False},),
)
class LSTMSeq2Seq(EncoderDecoder):
    """source -> embed -> LSTM; target -> embed -> LSTM from its last state -> attention -> head.

    Args:
        vocab_size: tokens of the source vocabulary, and of the target's where it is shared.
        target_vocab_size: a vocabulary and table of its own for the target; None shares one table.
        dim: width of embeddings and of both LSTMs.
        depth: layers of each LSTM.
        dropout: on embeddings, between layers and before the head (Zaremba et al. 2014).
        attention: the encoder reads both ways (Bahdanau et al. 2015, section 3.2), and each target
            token attends to what it read, see :class:`GeneralAttention`. Without, it reads the
            source backwards, and its last state is all that the decoder gets (Sutskever et al.
            2014, section 3.3).
        tie_embeddings: the head shares the table of the target embedding (Press & Wolf 2017).
        bos_id: the token that decoding starts from.

    Raises:
        ValueError: an odd ``dim`` for an encoder that reads both ways.
    """

    def __init__(
        self,
        vocab_size: int,
        target_vocab_size: int | None = None,
        dim: int = 256,
        depth: int = 2,
        dropout: float = 0.2,
        attention: bool = True,
        tie_embeddings: bool = True,
        bos_id: int = 1,
    ) -> None:
        source = ScaledEmbedding(vocab_size, dim)
        target = source if target_vocab_size is None else ScaledEmbedding(target_vocab_size, dim)
        super().__init__(
            source,
            LSTM(dim, depth, dropout, bidirectional=attention),
            target,
            LSTM(dim, depth, dropout),
            language_model_head(
                dim, target_vocab_size or vocab_size, tied=target if tie_embeddings else None
            ),
            bos_id=bos_id,
        )
        self.vocab_size, self.target_vocab_size = vocab_size, target_vocab_size
        self.attention = GeneralAttention(dim) if attention else None
        self.dropout = nn.Dropout(dropout)

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> tuple[Tensor, State]:
        """``(batch, tokens)`` -> outputs ``(batch, tokens, dim)``, and the state after the last; padding
        may stand anywhere."""
        if self.attention is None:
            source = source.flip(1)
            source_mask = None if source_mask is None else source_mask.flip(1)
        x = self.dropout(self.source_embedding(source))
        return self.encoder.read(x, source_mask)  # type: ignore[operator]

    def memory(
        self, source: Tensor, source_mask: Tensor | None = None
    ) -> tuple[LSTMState, Tensor | None]:
        """What the decoder starts from and attends to."""
        outputs, state = self.encode(source, source_mask)
        return LSTMState(state, outputs, source_mask), source_mask

    def features(
        self,
        target: Tensor,
        context: LSTMState | None,
        context_mask: Tensor | None = None,
        cache: LSTMState | None = None,
    ) -> Tensor:
        """What the head turns into logits, ``(batch, tokens, dim)``.

        Args:
            target: ``(batch, tokens)``; of a cache with branches, ``(batch, branches)``.
            context: what :meth:`memory` returned; not needed with a cache.
            cache: the same, and left in the state after the target.
        """
        now = context if cache is None else cache
        assert now is not None and now.context is not None
        # Branches of a row are rows of the state.
        rows = target.reshape(now.state[0].shape[1], -1)
        hidden, state = self.decoder(self.dropout(self.target_embedding(rows)), now.state)
        if cache is not None:
            cache.state = state
        hidden = hidden.reshape(len(now.context), -1, hidden.shape[2])
        if self.attention is not None:
            hidden = self.attention(hidden, now.context, now.context_mask)
        return self.dropout(hidden)

    def new_cache(
        self,
        context: LSTMState,
        context_mask: Tensor | None,
        capacity: int,
        branches: int,
        spare: int = 0,
    ) -> LSTMState:
        """The state is of one size, whatever the capacity."""
        return context
