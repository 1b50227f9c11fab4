"""GPT: a causal stack that predicts the next token (Radford et al. 2019; Touvron et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from family.core.cache import Cache
from family.core.config import TransformerConfig
from family.core.functions import soft_cap
from family.core.rotary import Rotary
from family.core.transformer import Transformer
from family.generation import sampled_stream, search_or_sample
from family.generation.compiled import compile_step
from family.generation.defaults import defaults_of
from family.generation.sampling import Sampling
from family.heads.language_model import language_model_head
from family.inputs.text import TextEmbedding, Vectors, document_positions, token_positions
from family.losses.token_loss import TokenLoss
from family.models.examples import TEXT
from family.models.member import member

SMALLEST = 256
"""Columns of a cache in compiled steps, at least; then twice as many, and so on."""
SMALL = TransformerConfig(dim=16, depth=2, heads=2, causal=True, position="rotary", max_tokens=32)
"""Of the tiny ones."""


@member(
    task="LanguageModeling",
    reads=("text",),
    inputs=TEXT,
    example={
        "vocab_size": 40,
        "config": SMALL,
    },
    variants=(
        {"config": SMALL.replace(position="learned", norm_order="post")},
        {"config": SMALL.replace(position="alibi", kv_heads=1, layers=[{"window": 4}, {}])},
        {"config": SMALL.replace(position="relative", feedforward="experts", experts=4)},
    ),
)
class GPT(nn.Module):
    """embed -> causal Transformer -> language-model head.

    Args:
        vocab_size: tokens in the vocabulary.
        config: the stack; must be causal.
        tie_embeddings: the head shares the table of the embedding.
        scale_embeddings: multiply token embeddings by sqrt(dim), rounded to their dtype (Gemma).
        logit_cap: logits are bent to stay under it (Gemma 2).
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        tie_embeddings: bool = True,
        scale_embeddings: bool = False,
        logit_cap: float | None = None,
    ) -> None:
        super().__init__()
        if not config.causal or config.cross_attention or config.condition_dim is not None:
            raise ValueError(
                "GPT predicts the next token from those before alone: its config needs causal=True, "
                "cross_attention=False and no condition_dim."
            )
        self.config, self.vocab_size, self.tie_embeddings = config, vocab_size, tie_embeddings
        self.embedding = TextEmbedding(vocab_size, config, scale_embeddings, rounded=True)
        self.transformer = Transformer(config)
        tied = self.embedding.tokens if tie_embeddings else None
        self.head = language_model_head(config.dim, vocab_size, tied=tied)
        self.logit_cap, self.compiled = logit_cap, False
        # Texts that reach such a position turn by other frequencies (longrope), from their start on.
        limits = [table.limit for table in self.transformer.rotaries if isinstance(table, Rotary)]
        self.borders = {limit for limit in limits if limit is not None}

    def features(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        documents: Tensor | None = None,
        vectors: Vectors | None = None,
    ) -> Tensor:
        """``(batch, tokens)`` -> ``(batch, tokens, dim)``, what the head turns into logits."""
        positions = (
            token_positions(input_ids, mask, cache)
            if documents is None
            else document_positions(documents)
        )
        x = self.embedding(input_ids, positions, vectors=vectors)
        return self.transformer(x, mask=mask, documents=documents, positions=positions, cache=cache)

    def forward(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        documents: Tensor | None = None,
        vectors: Vectors | None = None,
        loss: TokenLoss | None = None,
    ) -> Tensor:
        """Logits ``(batch, tokens, vocab)`` of the token after each; or the loss that is asked for.

        Args:
            input_ids: ``(batch, tokens)``.
            mask: ``(batch, tokens)``, True = a token; padding may stand left or right.
            documents: ``(batch, tokens)``, a number for each of the texts that are packed into a row:
                none sees another, and each counts its positions from 0.
            vectors: in the place of the tokens of one id.
            loss: what is asked for in the place of logits.
        """
        features = self.features(input_ids, mask, documents=documents, vectors=vectors)
        return self.logits(features) if loss is None else self.loss(features, loss)

    def loss(self, features: Tensor, loss: TokenLoss) -> Tensor:
        """What is asked for of logits, ``(...)`` vectors ``(..., dim)`` at a time."""
        return loss(self.head, features, self.logit_cap)

    def logits(self, features: Tensor) -> Tensor:
        """``(..., dim) -> (..., vocab)``."""
        logits = self.head(features)
        return logits if self.logit_cap is None else soft_cap(logits, self.logit_cap)

    def prefill(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        vectors: Vectors | None = None,
        *,
        capacity: int,
        branches: int = 1,
        spare: int = 0,
    ) -> tuple[Tensor, Cache]:
        """Read the prompt: logits ``(batch, vocab)`` of its next token, and a cache.

        Args:
            vectors: in the place of the tokens of one id.
            capacity: how many further tokens the cache has room for, in each of so many branches.
            spare: of the last tokens read so many may be taken back.

        Raises:
            ValueError: the prompt is empty, or longer than the context together with them; branches
                that could reach where rotary positions change.
        """
        batch, tokens = input_ids.shape
        if tokens == 0:
            raise ValueError("the prompt is empty: it needs one token at least.")
        compiled = self.compiled and branches == 1
        longest = self.config.max_tokens if compiled else self.config.longest
        if tokens + capacity > longest:
            raise ValueError(
                f"a prompt of {tokens} tokens and {capacity} new ones do not fit the context of "
                f"{longest} tokens."
            )
        room = self._size(tokens + 2) if compiled else tokens + capacity * branches
        cache = self.transformer.new_cache(batch, room, branches, spare)
        if mask is not None and not bool(mask.all()):
            # Flush right, whichever side the padding was on: the next column is then one for all.
            order = mask.long().argsort(dim=1, stable=True)
            input_ids, mask = input_ids.gather(1, order), mask.gather(1, order)
            cache.pad(mask)
        if self._will_change(cache, tokens, capacity):
            if branches > 1:
                raise ValueError(
                    f"beams cannot go on past {min(self.borders)} tokens, where the rotary positions "
                    "of this model change (longrope): take one beam, or fewer new tokens."
                )
            cache.ids, cache.vectors = input_ids, vectors
        hidden = self.features(input_ids, cache=cache, vectors=vectors)
        cache.advance(tokens)
        return self.logits(hidden[:, -1]), cache

    def _will_change(self, cache: Cache, tokens: int, capacity: int) -> bool:
        """Whether some row reaches a border within so many tokens after the prompt."""
        if not self.borders:
            return False
        first = cache.positions(torch.tensor([tokens], device=cache.progress.filled.device))
        return any(bool(((first <= n) & (n < first + capacity)).any()) for n in self.borders)

    def compile_decoding(self) -> None:
        """Compile the step of one token: the first call takes long, all later ones less time.

        The cache then has the size of a bucket, and grows to the next one as the text does: a step costs
        what its text takes, and only another bucket or number of rows compiles anew. Layers that are
        exchanged later on are not noticed. Where several rows are decoded, some processors read a copy of the
        weights in blocks, which is made for each text.
        """
        if self.compiled:
            return
        self.compiled = True
        self._step = compile_step(self._step)  # type: ignore[method-assign]

    def decode(self, tokens: Tensor, cache: Cache) -> Tensor:
        """One more token for each row ``(batch)`` -> logits ``(batch, vocab)`` of the next.

        Or for each branch of a row: ``(batch, branches)`` -> ``(batch, branches, vocab)``; before there are
        branches, several tokens of a row.
        """
        if cache.ids is not None:
            cache.ids = torch.cat([cache.ids, tokens.unsqueeze(1)], dim=1)
            position = cache.next_positions(1)
            if any(bool((position == border).any()) for border in self.borders):
                return self._read_anew(cache.ids, cache)
        needed = cache.progress.length + tokens[0].numel()
        capacity = cache.progress.capacity
        if self.compiled and capacity <= needed and capacity < self.config.max_tokens:
            cache.grow(self._size(needed + 1))  # before it is full, which is a program of its own
        if tokens.dim() == 2:
            logits = self.logits(self.features(tokens, cache=cache))
        else:
            cache.progress.static = self.compiled
            logits = self._step(tokens, cache)
            cache.progress.static = False
        cache.advance(tokens[0].numel())
        return logits

    def _size(self, tokens: int) -> int:
        """Of the cache in compiled steps, when it holds so many tokens."""
        return min(self.config.max_tokens, max(SMALLEST, 1 << (tokens - 1).bit_length()))

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files begin uncompiled: a compiled step is bound to its own model."""
        state = self.__dict__.copy()
        state.pop("_step", None)
        return {**state, "compiled": False}

    def _read_anew(self, input_ids: Tensor, cache: Cache) -> Tensor:
        """All that was read so far, by frequencies that have changed for some row."""
        cache.rewind()
        hidden = self.features(input_ids, cache=cache, vectors=cache.vectors)
        cache.advance(input_ids.shape[1])
        return self.logits(hidden[:, -1])

    def _step(self, tokens: Tensor, cache: Cache) -> Tensor:
        return self.logits(self.features(tokens.unsqueeze(1), cache=cache)[:, -1])

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

        What is None, or not among the options, is as ``model.generation`` says; a text ends with the
        token that the model or its tokenizer ends a text with. Of a text that grows beyond
        ``trained_tokens`` it reads the end alone, so long.

        Args:
            options: ``num`` texts of each row, ``stop_strings``, ``stop_ids``, ``min_new_tokens``,
                ``no_repeat_ngram``, ``length_penalty``, ``hook``, ``pad_id``, see
                :func:`family.generation.choose.chosen`; ``generator`` of the random numbers; ``draft``, a
                small model that guesses ``draft_tokens`` ahead, or "prompt", see
                :mod:`family.generation.speculative`.

        Example:
            >>> model = GPT(100, TransformerConfig(dim=32, depth=1, heads=2, causal=True)).eval()
            >>> model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=5).shape
            torch.Size([1, 5])
        """
        options.update(max_new_tokens=max_new_tokens, beams=beams, sampling=sampling)
        return search_or_sample(
            self, (input_ids, mask), **self._prompted(input_ids, mask), **options
        )

    def stream(
        self, input_ids: Tensor, mask: Tensor | None = None, **options: Any
    ) -> Iterator[Tensor]:
        """As :meth:`generate`, one token ``(batch)`` at a time, as soon as it is known."""
        return sampled_stream(self, (input_ids, mask), **self._prompted(input_ids, mask), **options)

    @property
    def trained_tokens(self) -> int | None:
        """The longest text that it was trained on, where ``generation`` says so."""
        return defaults_of(self).trained_tokens

    def _prompted(self, input_ids: Tensor, mask: Tensor | None) -> dict[str, Any]:
        tokens = input_ids.shape[1]
        room = self.config.longest - tokens
        return {"prompt": input_ids, "prompt_mask": mask, "begun": tokens, "room": room}


def gpt2(vocab_size: int = 50_257, **overrides: Any) -> GPT:
    """GPT-2 small, 124 M parameters; overrides are fields of :class:`TransformerConfig`."""
    fields: dict[str, Any] = {
        "dim": 768,
        "depth": 12,
        "heads": 12,
        "activation": "gelu_tanh",
        "causal": True,
        "position": "learned",
        "max_tokens": 1024,
    }
    return GPT(vocab_size, TransformerConfig(**{**fields, **overrides}))


def gpt2_medium(vocab_size: int = 50_257, **overrides: Any) -> GPT:
    """GPT-2 medium, 355 M parameters."""
    return gpt2(vocab_size, **{"dim": 1024, "depth": 24, "heads": 16, **overrides})


def gpt2_large(vocab_size: int = 50_257, **overrides: Any) -> GPT:
    """GPT-2 large, 774 M parameters."""
    return gpt2(vocab_size, **{"dim": 1280, "depth": 36, "heads": 20, **overrides})


def gpt2_xl(vocab_size: int = 50_257, **overrides: Any) -> GPT:
    """GPT-2 XL, 1,558 M parameters."""
    return gpt2(vocab_size, **{"dim": 1600, "depth": 48, "heads": 25, **overrides})


def gpt_nano(vocab_size: int = 65, **overrides: Any) -> GPT:
    """The size that nanoGPT trains on characters with a CPU: 4 layers, 4 heads, 128 wide."""
    small = {"dim": 128, "depth": 4, "heads": 4, "max_tokens": 64, "bias": False}
    return gpt2(vocab_size, **{**small, **overrides})


def llama(vocab_size: int = 32_000, tie_embeddings: bool = False, **overrides: Any) -> GPT:
    """Llama 7B, or by overrides any of its kind: RMSNorm, gated SiLU, rotary, grouped heads."""
    fields: dict[str, Any] = {
        "dim": 4096,
        "depth": 32,
        "heads": 32,
        "ffn_dim": None if "dim" in overrides else 11_008,
        "activation": "silu",
        "gated": True,
        "norm": "rmsnorm",
        "norm_eps": 1e-6,
        "bias": False,
        "causal": True,
        "position": "rotary",
        "max_tokens": 2048,
    }
    return GPT(vocab_size, TransformerConfig(**{**fields, **overrides}), tie_embeddings)
