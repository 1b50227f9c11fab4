"""LSTM encoder-decoders: one vector for a sentence (Sutskever et al. 2014), or attention to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from family.baselines.lstm import LSTM, LSTMState, ScaledEmbedding, State
from family.core.attention import allow, attend, expand_mask
from family.core.linear import Linear
from family.generation import search_or_sample
from family.generation.sampling import Sampling
from family.heads.language_model import LanguageModelHead
from family.models.member import member


class GeneralAttention(nn.Module):
    """The global attention of Luong et al. 2015, section 3.1, with the "general" score.

    The decoder's LSTM does not read what it attended to, as it does in Bahdanau et al. 2015 (and in
    Luong's "input feeding"): so all of a target goes through it in one call when training.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = Linear(dim, dim, bias=False)
        self.combine = Linear(2 * dim, dim, bias=False)
        for layer in (self.score, self.combine):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, hidden: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """The attentional vectors ``tanh(W [context; hidden])``, ``(batch, tokens, dim)``.

        Args:
            hidden: ``(batch, tokens, dim)``, of the decoder.
            context: ``(batch, source tokens, dim)``, zero where nothing stands.
            mask: ``(batch, source tokens)``, True = a token.
        """
        queries, keys = self.score(hidden)[:, None], context[:, None]
        allowed = allow(expand_mask(mask, len(context)), None, queries.dtype)
        read = attend(queries, keys, keys, allowed, scale=1.0)
        return torch.tanh(self.combine(torch.cat([read[:, 0], hidden], dim=-1)))


@member
class LSTMSeq2Seq(nn.Module):
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
        super().__init__()
        self.vocab_size, self.target_vocab_size, self.bos_id = vocab_size, target_vocab_size, bos_id
        self.source_embedding = ScaledEmbedding(vocab_size, dim)
        self.target_embedding = self.source_embedding
        if target_vocab_size is not None:
            self.target_embedding = ScaledEmbedding(target_vocab_size, dim)
        self.encoder = LSTM(dim, depth, dropout, bidirectional=attention)
        self.decoder = LSTM(dim, depth, dropout)
        self.attention = GeneralAttention(dim) if attention else None
        self.dropout = nn.Dropout(dropout)
        tied = self.target_embedding if tie_embeddings else None
        self.head = LanguageModelHead(dim, target_vocab_size or vocab_size, tied=tied)

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> tuple[Tensor, State]:
        """``(batch, tokens)`` -> outputs ``(batch, tokens, dim)``, and the state after the last."""
        if self.attention is None:
            source = source.flip(1)
            source_mask = None if source_mask is None else source_mask.flip(1)
        return self.encoder.read(self.dropout(self.source_embedding(source)), source_mask)

    def read_target(
        self, target: Tensor, state: State, context: Tensor, context_mask: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """What the head turns into logits, ``(batch, tokens, dim)``, and the decoder's last state.

        Args:
            target: ``(batch, tokens)``, or several targets of each row: ``(batch * branches, 1)``,
                which share its context; they come back as ``(batch, branches, dim)``.
            state: that the decoder starts from.
            context: ``(batch, source tokens, dim)`` with ``context_mask``.
        """
        hidden, state = self.decoder(self.dropout(self.target_embedding(target)), state)
        hidden = hidden.reshape(len(context), -1, hidden.shape[2])
        if self.attention is not None:
            hidden = self.attention(hidden, context, context_mask)
        return self.dropout(hidden), state

    def forward(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """Logits ``(batch, target tokens, vocab)`` of the token after each of the target.

        Args:
            source: ``(batch, source tokens)``.
            target: ``(batch, target tokens)`` as fed to the decoder, beginning with ``bos_id``;
                padding stands right, where the decoder has not read it yet.
            source_mask: ``(batch, source tokens)``, True = a token; padding may stand anywhere.
        """
        context, state = self.encode(source, source_mask)
        return self.head(self.read_target(target, state, context, source_mask)[0])

    def prefill(
        self,
        source: Tensor,
        source_mask: Tensor | None = None,
        *,
        capacity: int | None = None,
        branches: int = 1,
    ) -> tuple[Tensor, LSTMState]:
        """Read the source: logits ``(batch, vocab)`` of the first target token, and the state.

        Args:
            capacity, branches: what a cache of keys would need; a state is always of one size.
        """
        context, state = self.encode(source, source_mask)
        cache = LSTMState(state, context, source_mask)
        start = torch.full((len(source),), self.bos_id, device=source.device)
        return self.decode(start, cache), cache

    def decode(self, tokens: Tensor, cache: LSTMState) -> Tensor:
        """One more token for each row ``(batch)`` -> logits ``(batch, vocab)`` of the next.

        Or for each branch of a row: ``(batch, branches)`` -> ``(batch, branches, vocab)``.
        """
        assert cache.context is not None
        hidden, cache.state = self.read_target(
            tokens.reshape(-1, 1), cache.state, cache.context, cache.context_mask
        )
        return self.head(hidden).view(*tokens.shape, -1)

    def generate(
        self,
        source: Tensor,
        source_mask: Tensor | None = None,
        *,
        max_new_tokens: int = 256,
        beams: int = 1,
        sampling: Sampling = Sampling(),
        length_penalty: float = 1.0,
        **options: Any,
    ) -> Tensor:
        """Translate: tokens ``(batch, at most max_new_tokens)``, padded after the stop token.

        Args:
            options: ``stop_ids``, ``pad_id``, ``generator``: see :mod:`family.generation`.
        """
        options["max_new_tokens"] = max_new_tokens
        inputs = (source, source_mask)
        return search_or_sample(self, inputs, beams, length_penalty, sampling, **options)
