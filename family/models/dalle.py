"""DALL-E: one GPT over the words of a caption, then over the tokens of its picture (Ramesh et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from family.core.cache import Cache
from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.generation.generate import generate
from family.generation.guidance import Guided, guides
from family.generation.sampling import Sampling
from family.heads.language_model import language_model_head
from family.inputs.patches import over_patches
from family.inputs.position import grid_coordinates
from family.losses.language_model import IGNORE, language_model_loss
from family.models.examples import TOKENS_AND_TEXTS
from family.models.member import member
from family.models.owned_tokenizer import owned_tokenizer, stay_frozen

POSITIONS = ("learned", "rotary")


class Slots(NamedTuple):
    """Captions in the places that all of them have.

    Args:
        ids: ``(batch, text_tokens)``, words from the first slot on.
        filled: ``(batch, text_tokens)``, True = a word.
    """

    ids: Tensor
    filled: Tensor


@member(
    task="TextToImage",
    reads=("text", "pictures"),
    inputs=TOKENS_AND_TEXTS,
    example={
        "vocab_size": 40,
        "config": TransformerConfig(dim=16, depth=2, heads=2, causal=True, position="learned"),
        "text_tokens": 32,
        "image_tokenizer": {
            "image_size": 16,
            "downsampling": 4,
            "width": 8,
            "depth": 1,
            "codebook": {"size": 20, "dim": 4},
        },
    },
    variants=(
        {"config": TransformerConfig(dim=16, depth=2, heads=2, causal=True, position="rotary")},
    ),
)
class DALLE(nn.Module):
    """words in their slots, then codes row by row -> causal Transformer -> the next word, the next code.

    Every caption has ``text_tokens`` slots, and those that it leaves free hold a padding token of their own
    each (section 2.2). So pictures begin at the same place whatever their caption, decoding needs no mask, and
    no caption, which guidance asks for, is a row of padding like any other. Words and codes have tables and
    heads of their own: which of the two comes next is known from the place.

    Args:
        vocab_size: words in the vocabulary.
        config: the stack, causal; ``position`` is "learned" (a table of slots, one of rows and one of columns,
            added) or "rotary" (a word turns by its slot on both axes, a code by its row and column, counted on
            from there). Its ``max_tokens`` is set here.
        text_tokens: the slots, the most tokens of a caption.
        text_weight: share of the words in the loss, that of the codes being the rest (1/8 in the paper).
        caption_dropout: the share of captions left out in training, without which guidance cannot be.
        image_size: of the pictures, ``side`` or ``(height, width)``; None is the image tokenizer's.
        image_tokenizer: arguments of the image tokenizer in whose codes pictures are drawn; it is built here,
            frozen, and saved with the model.

    Raises:
        ValueError: no image tokenizer, or one for another size; a config that is not causal, has cross-attention, a
            condition or another ``position``; shares out of range.
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        text_tokens: int = 64,
        *,
        text_weight: float = 0.125,
        caption_dropout: float = 0.1,
        image_size: int | Sequence[int] | None = None,
        image_tokenizer: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check(config, text_tokens, text_weight, caption_dropout)
        if image_tokenizer is None:
            raise ValueError(
                "DALLE draws in the tokens of an image tokenizer: give image_tokenizer, its arguments; in "
                "training, where that comes from, as model.image_tokenizer."
            )
        self.image_tokenizer: Any = owned_tokenizer(image_tokenizer, image_size)
        self.vocab_size, self.text_tokens = vocab_size, text_tokens
        self.text_weight, self.caption_dropout = text_weight, caption_dropout
        self.image_size: tuple[int, int] = self.image_tokenizer.image_size
        rows, columns = self.image_tokenizer.grid
        self.image_tokens = rows * columns
        self.config = config = over_patches(config).replace(
            max_tokens=text_tokens + self.image_tokens
        )
        codes: int = self.image_tokenizer.vocab_size
        self.words, self.padding = table(vocab_size, config), table(text_tokens, config)
        self.codes = table(codes, config)
        self.slots: nn.Embedding | None = None
        self.rows: nn.Embedding | None = None
        self.columns: nn.Embedding | None = None
        if config.position == "learned":
            self.slots = table(text_tokens, config)
            self.rows, self.columns = table(rows, config), table(columns, config)
        slots = torch.arange(text_tokens)[:, None].expand(-1, 2)
        places = torch.cat([slots, text_tokens + grid_coordinates(rows, columns, slots.device)])
        self.register_buffer("places", places, persistent=False)
        self.places: Tensor
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(config)
        self.word_head = language_model_head(config.dim, vocab_size)
        self.code_head = language_model_head(config.dim, codes)

    def train(self, mode: bool = True) -> DALLE:
        super().train(mode)
        stay_frozen(self.image_tokenizer)
        return self

    # --- Words and codes as one sequence ---

    def placed(self, input_ids: Tensor, mask: Tensor | None = None) -> Slots:
        """Captions ``(batch, words)`` in their slots, wherever their padding stands.

        Raises:
            ValueError: more words than slots.
        """
        batch, words = input_ids.shape
        if words > self.text_tokens:
            raise ValueError(
                f"a caption of {words} tokens does not fit text_tokens={self.text_tokens}."
            )
        if mask is None:
            mask = torch.ones_like(input_ids, dtype=torch.bool)
        where = (mask.long().cumsum(1) - 1).masked_fill(~mask, self.text_tokens)
        ids = input_ids.new_zeros(batch, self.text_tokens + 1)
        ids = ids.scatter(1, where, input_ids)[:, :-1]  # the column more takes the padding
        slots = torch.arange(self.text_tokens, device=input_ids.device)
        return Slots(ids, slots < mask.sum(1, keepdim=True))

    def read(self, slots: Slots) -> Tensor:
        """The vectors of all slots, ``(batch, text_tokens, dim)``."""
        x = torch.where(slots.filled[..., None], self.words(slots.ids), self.padding.weight)
        return x if self.slots is None else x + self.slots.weight

    def seen(self, image_ids: Tensor, first: int = 0) -> Tensor:
        """The vectors of codes ``(batch, tokens)``, of which the first has this place in the picture."""
        x = self.codes(image_ids)
        if self.rows is None or self.columns is None:
            return x
        begin = self.text_tokens + first
        row, column = (self.places[begin : begin + x.shape[1]] - self.text_tokens).unbind(1)
        return x + self.rows(row) + self.columns(column)

    def features(self, x: Tensor, first: int = 0, cache: Cache | None = None) -> Tensor:
        """``(batch, tokens, dim)`` of a sequence from its token ``first`` on."""
        positions = None
        if self.config.position == "rotary":
            positions = self.places[first : first + x.shape[1]]
        return self.transformer(self.dropout(x), positions=positions, cache=cache)

    def forward(
        self, image_ids: Tensor, input_ids: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of what follows: ``words (batch, text_tokens - 1, vocab)``, of the second slot and those
        after, and ``codes (batch, image tokens, codes)``.

        Args:
            image_ids: ``(batch, image tokens)``, row by row; the last is read by nobody.
            input_ids: ``(batch, words)``.
            mask: ``(batch, words)``, True = a word, padding may stand left or right; a row without any is no
                caption.

        Raises:
            ValueError: not one caption a picture, a caption longer than ``text_tokens``, or other than all
                codes of a picture.
        """
        if image_ids.shape[0] != input_ids.shape[0]:
            raise ValueError(
                f"{len(image_ids)} pictures need as many captions, not {len(input_ids)}."
            )
        if image_ids.shape[1] != self.image_tokens:
            raise ValueError(f"a picture has {self.image_tokens} codes, not {image_ids.shape[1]}.")
        words = self.read(self.placed(input_ids, mask))
        hidden = self.features(torch.cat([words, self.seen(image_ids[:, :-1])], dim=1))
        last = self.text_tokens - 1
        return {
            "words": self.word_head(hidden[:, :last]),
            "codes": self.code_head(hidden[:, last:]),
        }

    # --- Training ---

    def losses(
        self, pixel_values: Tensor, input_ids: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``loss``, the weighted mean of the cross-entropies of codes and words; ``bits_per_token``, that of a
        code in bits; ``text_loss``, that of words: of each caption the mean over its words, but for the first
        and for padding, and of these the mean over the captions that were not left out.

        Args:
            pixel_values: ``(batch, 3, height, width)`` in -1..1.
            input_ids, mask: ``(batch, words)``; training leaves some captions out.
        """
        if mask is None:
            mask = torch.ones_like(input_ids, dtype=torch.bool)
        if self.training and self.caption_dropout:
            mask = mask & (torch.rand(len(mask), 1, device=mask.device) >= self.caption_dropout)
        image_ids, slots = self.tokenize(pixel_values), self.placed(input_ids, mask)
        logits = self(image_ids, input_ids, mask)
        codes = language_model_loss(logits["codes"], image_ids)
        labels = slots.ids.masked_fill(~slots.filled, IGNORE)[:, 1:]
        each = language_model_loss(logits["words"], labels, reduction="none").view_as(labels)
        count = (labels != IGNORE).sum(1)
        told = (count > 0).sum().clamp(min=1)
        words = (each.sum(1) / count.clamp(min=1)).sum() / told
        loss = (1 - self.text_weight) * codes + self.text_weight * words
        bits = codes.detach() / math.log(2)
        return {"loss": loss, "bits_per_token": bits, "text_loss": words.detach()}

    @torch.no_grad()
    def tokenize(self, pixel_values: Tensor) -> Tensor:
        """The codes of pictures, ``(batch, image tokens)``, in the precision of the tokenizer's weights."""
        with torch.autocast(pixel_values.device.type, enabled=False):
            like = next(self.image_tokenizer.parameters())
            return self.image_tokenizer.tokenize(pixel_values.to(like.dtype))

    # --- Drawing ---

    def prefill(
        self, input_ids: Tensor, mask: Tensor | None = None, *, capacity: int
    ) -> tuple[Tensor, Cache]:
        """Read captions: logits ``(batch, codes)`` of the first code, and a cache with room for so many."""
        cache = self.transformer.new_cache(len(input_ids), self.text_tokens + capacity)
        hidden = self.features(self.read(self.placed(input_ids, mask)), cache=cache)
        cache.advance(self.text_tokens)
        return self.code_head(hidden[:, -1]), cache

    def decode(self, tokens: Tensor, cache: Cache) -> Tensor:
        """One more code for each row ``(batch)`` -> logits ``(batch, codes)`` of the next."""
        first = cache.progress.length
        x = self.seen(tokens[:, None], first - self.text_tokens)
        hidden = self.features(x, first, cache)
        cache.advance(1)
        return self.code_head(hidden[:, -1])

    def draw_ids(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        *,
        guidance: float | None = None,
        sampling: Sampling = Sampling(temperature=1.0),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The codes of a picture for each caption, ``(batch, image tokens)``; arguments as :meth:`draw`'s."""
        decoder: Any = self
        if guides(guidance, self.caption_dropout):
            decoder = Guided(self, float(guidance or 0))
        return generate(
            decoder,
            (input_ids, mask),
            max_new_tokens=self.image_tokens,
            sampling=sampling,
            generator=generator,
        )

    @torch.no_grad()
    def draw(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        *,
        guidance: float | None = None,
        sampling: Sampling = Sampling(temperature=1.0),
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """A picture for each caption, ``(batch, 3, height, width)`` in -1..1.

        Args:
            input_ids, mask: ``(batch, words)``, as :meth:`forward`'s.
            guidance: how far the words are overstated, see :class:`~family.generation.guidance.Guided`; None or
                1 is as they are said.
            sampling: how each code is drawn.
            generator: of the random numbers, on the device of the model.

        Raises:
            ValueError: guidance of a model that never saw a picture without caption, or below 0; a caption longer
                than ``text_tokens``.
        """
        options: dict[str, Any] = {"guidance": guidance, "sampling": sampling}
        ids = self.draw_ids(input_ids, mask, generator=generator, **options)
        return self.image_tokenizer.decode(ids).clamp(-1, 1)


def table(rows: int, config: TransformerConfig) -> nn.Embedding:
    """So many vectors that are learned."""
    made = nn.Embedding(rows, config.dim)
    nn.init.normal_(made.weight, std=0.02 if config.init_std is None else config.init_std)
    return made


def check(
    config: TransformerConfig, text_tokens: int, text_weight: float, caption_dropout: float
) -> None:
    """What :class:`DALLE` refuses of its arguments."""
    if not config.causal or config.cross_attention or config.condition_dim is not None:
        raise ValueError(
            "DALLE predicts the next token from those before alone: its config needs causal=True, "
            "cross_attention=False and no condition_dim."
        )
    if config.position not in POSITIONS:
        raise ValueError(
            f"position={config.position!r} is not for words and codes in one stack, which take one of: "
            f"{', '.join(POSITIONS)}."
        )
    if text_tokens < 2:
        raise ValueError(f"text_tokens must be at least 2, not {text_tokens}.")
    if not 0 <= text_weight < 1:
        raise ValueError(f"text_weight must be in [0, 1), not {text_weight}.")
    if not 0 <= caption_dropout < 1:
        raise ValueError(f"caption_dropout must be in [0, 1), not {caption_dropout}.")
