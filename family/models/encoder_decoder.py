"""Any front-end and encoder with any decoder: one model for translation, speech, captions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from family.core.cache import Cache
from family.core.config import TransformerConfig
from family.generation import search_or_sample
from family.generation.sampling import Sampling
from family.inputs.text import token_positions
from family.losses.token_loss import TokenLoss


class EncoderDecoder(nn.Module):
    """source -> front-end -> encoder; target -> embed -> decoder, attending to it -> head.

    Args:
        source_embedding: the front-end: its ``read(source, mask)`` gives
            :class:`~family.inputs.text.Tokens` (text, sound, patches).
        encoder: a :class:`~family.core.transformer.Transformer`, or what is called alike.
        target_embedding: of the decoder's tokens.
        decoder: a causal stack with cross-attention; ``context_dim`` is the encoder's width.
        head: ``(..., decoder's dim) -> (..., vocab)``.
        bos_id: the token that decoding starts from, where no prompt is given.
        output_factor: on what the head reads.
        forbidden_id: a token that generation never chooses (the padding of Marian, which has a row
            in its tables).
    """

    def __init__(
        self,
        source_embedding: nn.Module,
        encoder: nn.Module,
        target_embedding: nn.Module,
        decoder: nn.Module,
        head: nn.Module,
        *,
        bos_id: int,
        output_factor: float = 1.0,
        forbidden_id: int | None = None,
    ) -> None:
        super().__init__()
        self.source_embedding, self.target_embedding = source_embedding, target_embedding
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.bos_id, self.forbidden_id = bos_id, forbidden_id
        self.output_factor = output_factor

    def encode(self, source: Tensor, source_mask: Tensor | None = None) -> Any:
        """The encoder's view of the source, ``(batch, tokens, dim)``; arguments as :meth:`memory`'s."""
        return self.memory(source, source_mask)[0]

    def memory(
        self, source: Tensor, source_mask: Tensor | None = None
    ) -> tuple[Any, Tensor | None]:
        """What the decoder attends to, ``(batch, tokens, dim)``, and its mask ``(batch, tokens)``.

        Args:
            source: what the front-end reads: ``(batch, tokens)`` ids, ``(batch, mels, frames)`` ...
            source_mask: of the source, True = real.
        """
        x, mask, positions = self.source_embedding.read(source, source_mask)  # type: ignore[operator]
        return self.encoder(x, mask=mask, positions=positions), mask

    @property
    def longest_target(self) -> float:
        """The most tokens that the decoder reads."""
        return getattr(getattr(self.decoder, "config", None), "longest", math.inf)

    def features(
        self,
        target: Tensor,
        context: Any,
        context_mask: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """The decoder's ``(batch, tokens, dim)``, what the head turns into logits."""
        positions = token_positions(target, cache=cache)
        x = self.target_embedding(target, positions)
        x = self.decoder(
            x, positions=positions, context=context, context_mask=context_mask, cache=cache
        )
        return x if self.output_factor == 1 else x * self.output_factor

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        source_mask: Tensor | None = None,
        loss: TokenLoss | None = None,
    ) -> Tensor:
        """Logits ``(batch, target tokens, vocab)`` of the token after each of the target; or the loss that
        is asked for.

        Args:
            source, source_mask: as :meth:`memory`'s.
            target: ``(batch, target tokens)`` as fed to the decoder, beginning with ``bos_id``;
                padding stands right, where a causal decoder cannot see it.
        """
        context, mask = self.memory(source, source_mask)
        features = self.features(target, context, mask)
        return self.head(features) if loss is None else loss(self.head, features)

    def prefill(
        self,
        source: Tensor,
        source_mask: Tensor | None = None,
        prompt: Tensor | None = None,
        *,
        capacity: int,
        branches: int = 1,
        spare: int = 0,
    ) -> tuple[Tensor, Any]:
        """Read source and prompt: logits ``(batch, vocab)`` of the next target token, and a cache.

        Args:
            prompt: ``(batch, tokens)`` that the target begins with; None is ``bos_id`` alone.
            capacity: how many further tokens the cache has room for, in each of so many branches.
            spare: of the last tokens read so many may be taken back.

        Raises:
            ValueError: an empty prompt, one for another number of rows, or more tokens than the
                decoder reads.
        """
        if source_mask is not None and bool(source_mask.all()):
            source_mask = None  # nothing to mask at every step
        context, mask = self.memory(source, source_mask)
        rows = len(source)
        if prompt is None:
            prompt = torch.full((rows, 1), self.bos_id, device=source.device)
        if prompt.dim() != 2 or len(prompt) != rows or prompt.shape[1] == 0:
            raise ValueError(
                f"prompt must be ({rows} rows, at least 1 token), not {tuple(prompt.shape)}."
            )
        tokens = prompt.shape[1]
        if tokens + capacity - 1 > self.longest_target:  # the last one is not read
            raise ValueError(
                f"a prompt of {tokens} tokens and {capacity} new ones do not fit the decoder's "
                f"max_tokens={self.longest_target}."
            )
        cache = self.new_cache(context, mask, tokens + capacity * branches, branches, spare)
        hidden = self.features(prompt, context, mask, cache)
        cache.advance(tokens)
        return self._allowed(self.head(hidden[:, -1])), cache

    def new_cache(
        self,
        context: Any,
        context_mask: Tensor | None,
        capacity: int,
        branches: int,
        spare: int = 0,
    ) -> Any:
        """What decoding remembers, empty, beside the mask of what it attends to."""
        cache: Cache = self.decoder.new_cache(len(context), capacity, branches, spare)  # type: ignore[operator]
        cache.context_mask = context_mask
        return cache

    def decode(self, tokens: Tensor, cache: Any) -> Tensor:
        """One more token for each row ``(batch)`` -> logits ``(batch, vocab)`` of the next.

        Or for each branch of a row: ``(batch, branches)`` -> ``(batch, branches, vocab)``.
        """
        side_by_side = tokens.reshape(len(tokens), -1)
        hidden = self.features(side_by_side, None, cache.context_mask, cache)
        cache.advance(side_by_side.shape[1])
        return self._allowed(self.head(hidden if tokens.dim() == 2 else hidden[:, -1]))

    def _allowed(self, logits: Tensor) -> Tensor:
        if self.forbidden_id is not None:
            logits[..., self.forbidden_id] = -math.inf
        return logits

    def generate(
        self,
        source: Tensor,
        source_mask: Tensor | None = None,
        *,
        prompt: Tensor | None = None,
        max_new_tokens: int | None = None,
        beams: int | None = None,
        sampling: Sampling | None = None,
        **options: Any,
    ) -> Tensor:
        """The target: tokens ``(batch, at most max_new_tokens)``, padded after the stop token.

        What is None, or not among the options, is as ``model.generation`` says; a text ends with the
        token that the model or its tokenizer ends a text with.

        Args:
            prompt: as :meth:`prefill`'s; not part of the result.
            max_new_tokens: None is the model's own limit or 256, or as many as the decoder has room for.
            options: ``num`` texts of each row, ``stop_strings``, ``stop_ids``, ``min_new_tokens``,
                ``no_repeat_ngram``, ``length_penalty``, ``hook``, ``pad_id``, see
                :func:`family.generation.choose.chosen`; ``generator`` of the random numbers.

        Raises:
            ValueError: more tokens than the decoder reads, and see :meth:`prefill`.
        """
        begun = 1 if prompt is None else prompt.shape[-1]
        # The last token is not read.
        options.update(begun=begun, room=self.longest_target - begun + 1)
        options.update(max_new_tokens=max_new_tokens, beams=beams, sampling=sampling)
        inputs = (source, source_mask) if prompt is None else (source, source_mask, prompt)
        if prompt is None:  # repetitions count what a target begins with too
            prompt = torch.full((len(source), 1), self.bos_id, device=source.device)
        return search_or_sample(self, inputs, prompt=prompt, **options)


def decoder_of(
    config: TransformerConfig, decoder: TransformerConfig | None, depth: int | None, owner: str
) -> TransformerConfig:
    """The decoder's stack: as given, or as the encoder's with causal and cross-attention.

    Args:
        owner: the class that asks, for the message.

    Raises:
        ValueError: stacks that do not go together.
    """
    if config.causal or config.cross_attention:
        raise ValueError(
            f"{owner}: config describes the encoder, with causal=False and cross_attention=False."
        )
    if decoder is None:
        decoder = config.replace(
            causal=True, cross_attention=True, depth=depth or config.depth, context_dim=config.dim
        )
    if depth is not None and depth != decoder.depth:
        raise ValueError(
            f"{owner}: decoder_depth={depth} contradicts decoder_config.depth={decoder.depth}."
        )
    fitting = decoder.causal and decoder.cross_attention and decoder.context_dim == config.dim
    if not fitting:
        raise ValueError(
            f"{owner}: decoder_config needs causal=True, cross_attention=True and "
            f"context_dim={config.dim}, the encoder's width, not {decoder.causal}, "
            f"{decoder.cross_attention} and {decoder.context_dim}."
        )
    return decoder
