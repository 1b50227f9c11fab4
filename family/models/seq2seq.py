"""The 2017 encoder-decoder (Vaswani et al., "Attention Is All You Need")."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from family.core.cache import Cache
from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.generation import search_or_sample
from family.generation.sampling import Sampling
from family.heads.language_model import LanguageModelHead
from family.inputs.text import TextEmbedding, token_positions
from family.models.member import member, split_overrides


@member
class Seq2Seq(nn.Module):
    """source -> embed -> encoder; target -> embed -> decoder, attending to it -> head.

    Args:
        vocab_size: tokens of the source vocabulary, and of the target's where it is shared.
        config: the encoder's stack; the decoder has the same with causal and cross-attention.
        target_vocab_size: a vocabulary and table of its own for the target; None shares one table
            between source, target and head (section 3.4).
        decoder_depth: None is as deep as the encoder.
        tie_embeddings: the head shares the table of the target embedding.
        output_bias: a bias on the logits (Marian).
        bos_id: the token that decoding starts from.
        scale_embeddings: multiply token embeddings by sqrt(dim) (section 3.4).
        scale_outputs: divide what the head reads by sqrt(dim) (T5).
        forbidden_id: a token that generation never chooses (the padding of Marian, which has a row
            in its tables).
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        target_vocab_size: int | None = None,
        decoder_depth: int | None = None,
        tie_embeddings: bool = True,
        output_bias: bool = False,
        bos_id: int = 1,
        scale_embeddings: bool = True,
        scale_outputs: bool = False,
        forbidden_id: int | None = None,
    ) -> None:
        super().__init__()
        if config.causal or config.cross_attention:
            raise ValueError(
                f"{type(self).__name__} derives its decoder: its config describes the encoder, with "
                "causal=False and cross_attention=False."
            )
        self.config, self.vocab_size = config, vocab_size
        self.target_vocab_size, self.tie_embeddings = target_vocab_size, tie_embeddings
        self.output_bias, self.bos_id, self.forbidden_id = output_bias, bos_id, forbidden_id
        self.decoder_depth = decoder_depth or config.depth
        target_size, scaled = target_vocab_size or vocab_size, scale_embeddings
        self.source_embedding = TextEmbedding(vocab_size, config, scaled)
        self.target_embedding = TextEmbedding(target_size, config, scaled)
        if target_vocab_size is None:
            self.target_embedding.tokens = self.source_embedding.tokens
        self.encoder = Transformer(config)
        self.decoder = Transformer(
            config.replace(causal=True, cross_attention=True, depth=self.decoder_depth)
        )
        tied = self.target_embedding.tokens if tie_embeddings else None
        self.head = LanguageModelHead(config.dim, target_size, output_bias, tied=tied)
        self.output_factor = config.dim**-0.5 if scale_outputs else 1.0

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """``(batch, tokens)`` -> ``(batch, tokens, dim)``."""
        positions = token_positions(source, source_mask)
        x = self.source_embedding(source, positions)
        return self.encoder(x, mask=source_mask, positions=positions)

    def features(
        self,
        target: Tensor,
        context: Tensor | None,
        context_mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """The decoder's ``(batch, tokens, dim)``, what the head turns into logits."""
        positions = token_positions(target, cache=cache)
        x = self.target_embedding(target, positions)
        x = self.decoder(
            x, positions=positions, context=context, context_mask=context_mask, cache=cache
        )
        return x if self.output_factor == 1 else x * self.output_factor

    def forward(self, source: Tensor, target: Tensor, source_mask: Tensor | None = None) -> Tensor:
        """Logits ``(batch, target tokens, vocab)`` of the token after each of the target.

        Args:
            source: ``(batch, source tokens)``.
            target: ``(batch, target tokens)`` as fed to the decoder, beginning with ``bos_id``;
                padding stands right, where a causal decoder cannot see it.
            source_mask: ``(batch, source tokens)``, True = a token.
        """
        context = self.encode(source, source_mask)
        return self.head(self.features(target, context, source_mask))

    def prefill(
        self, source: Tensor, source_mask: Tensor | None = None, *, capacity: int, branches: int = 1
    ) -> tuple[Tensor, Cache]:
        """Read the source: logits ``(batch, vocab)`` of the first target token, and a cache."""
        if source_mask is not None and bool(source_mask.all()):
            source_mask = None  # nothing to mask at every step
        context = self.encode(source, source_mask)
        cache = self.decoder.new_cache(len(source), 1 + capacity * branches)
        cache.context_mask = source_mask
        start = torch.full((len(source), 1), self.bos_id, device=source.device)
        hidden = self.features(start, context, source_mask, cache)
        cache.advance(1)
        return self._allowed(self.head.next_token(hidden)), cache

    def decode(self, tokens: Tensor, cache: Cache) -> Tensor:
        """One more token for each row ``(batch)`` -> logits ``(batch, vocab)`` of the next.

        Or for each branch of a row: ``(batch, branches)`` -> ``(batch, branches, vocab)``.
        """
        side_by_side = tokens.reshape(len(tokens), -1)
        hidden = self.features(side_by_side, None, cache.context_mask, cache)
        cache.advance(side_by_side.shape[1])
        logits = self.head(hidden) if tokens.dim() == 2 else self.head.next_token(hidden)
        return self._allowed(logits)

    def _allowed(self, logits: Tensor) -> Tensor:
        if self.forbidden_id is not None:
            logits[..., self.forbidden_id] = -math.inf
        return logits

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
        options.update(max_new_tokens=max_new_tokens)
        inputs = (source, source_mask)
        return search_or_sample(self, inputs, beams, length_penalty, sampling, **options)


def transformer_base(vocab_size: int = 37_000, **overrides: Any) -> Seq2Seq:
    """Table 3, "base": 6 + 6 layers, 512 wide, 8 heads, 65 M parameters.

    Args:
        overrides: fields of :class:`TransformerConfig`, and arguments of :class:`Seq2Seq`.
    """
    fields, own = split_overrides(overrides)
    base: dict[str, Any] = {
        "activation": "relu",
        "norm_order": "post",
        "position": "sinusoidal",
        "dropout": 0.1,
        "init_std": None,
    }
    return Seq2Seq(vocab_size, TransformerConfig(**{**base, **fields}), **own)


def transformer_small(vocab_size: int = 8_000, **overrides: Any) -> Seq2Seq:
    """3 + 3 layers, 256 wide, 4 heads, for data sets of 100,000 sentences."""
    return transformer_base(vocab_size, **{"dim": 256, "depth": 3, "heads": 4, **overrides})


def transformer_tiny(vocab_size: int = 8_000, **overrides: Any) -> Seq2Seq:
    """Wu et al. 2021: 4 + 4 layers, 128 wide, 4 heads, feed-forward 256, dropout 0.3."""
    tiny = {"dim": 128, "depth": 4, "heads": 4, "ffn_dim": 256, "dropout": 0.3}
    return transformer_base(vocab_size, **{**tiny, **overrides})
