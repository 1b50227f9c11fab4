"""DiT: a Transformer that turns noise into the picture that words ask for (Peebles & Xie 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.init import init_linear
from family.core.transformer import Transformer
from family.generation.flow import follow, guided
from family.generation.guidance import guides, with_and_without
from family.heads.patches import PatchHead
from family.heads.pooling import pool_mean
from family.inputs.patches import PatchConfig, PatchEmbedding, over_patches, pair
from family.inputs.text import TextEmbedding
from family.inputs.time import TimeEmbedding
from family.losses.flow import TIMES, draw_times, flow_matching_loss, shifted, straight_path
from family.losses.processes import over_processes
from family.models.examples import NOISE_AND_TEXTS
from family.models.member import member
from family.models.owned_tokenizer import owned_tokenizer, stay_frozen

WAYS = ("cross", "joint")
PREDICTS = ("velocity", "data")
LEAST = 0.05
"""Of the way that is left, by which what is missing is divided (Li & He 2025, appendix A)."""


class Words(NamedTuple):
    """What pictures are told of captions."""

    x: Tensor
    """``(batch, words, dim)``, in cross-attention of the width of the words' stack."""
    mask: Tensor | None
    """``(batch, words)``, True = a token; a row without any is no caption."""
    pooled: Tensor
    """``(batch, condition_dim)``."""


@member(
    task="TextToImage",
    reads=("text", "pictures"),
    inputs=NOISE_AND_TEXTS,
    example={
        "vocab_size": 40,
        "config": TransformerConfig(dim=16, depth=2, heads=2, position="sinusoidal"),
        "words": TransformerConfig(dim=16, depth=1, heads=2, position="learned", max_tokens=32),
        "image_size": 16,
        "patch_size": 8,
    },
    variants=({"text": "joint"},),
)
class DiT(nn.Module):
    """noisy patches -> Transformer, told time and words -> the velocity from noise to picture.

    Time and the mean of the words shift, scale and gate every branch of the blocks (section 3.2,
    "adaLN-Zero"); the words themselves are read by cross-attention, or beside the patches in one stack.
    A picture is a tensor in -1..1, or its latents in an image tokenizer, each channel brought to mean 0
    and deviation 1.

    Args:
        vocab_size: words in the vocabulary.
        config: the stack over patches, not causal; its condition, and for "cross" the attention to
            words, are set here. ``position`` is "sinusoidal" in DiT; "learned", "none" or, for "cross",
            "rotary".
        words: the stack over captions, of at most ``max_tokens``.
        image_size: pixels, ``side`` or ``(height, width)``.
        patch_size: pixels, or cells of latents.
        text: how patches see words: "cross" or "joint".
        caption_dropout: the share of captions left out in training, without which guidance cannot be.
        times: what training draws, see :func:`~family.losses.flow.draw_times`.
        shift: how much of training and drawing is spent near noise, see :func:`~family.losses.flow.shifted`.
        predicts: what the network says: "velocity", or "data", the picture that the velocity leads to. Large
            patches hold more noise than the network is wide, but few pictures (Li & He 2025, JiT).
        image_tokenizer: arguments of the image tokenizer whose latents are drawn; it is built here,
            frozen, and saved with the model. None draws pixels.
        quantised: whether latents that are drawn become pixels at their nearest codes (Rombach et al. 2022,
            section 3.2, do so where their first stage has codes): sharp, where codes are few.

    Raises:
        ValueError: a causal config, positions that words have no place in, an unknown ``text``, ``times`` or
            ``predicts``, a ``shift`` that is not above 0, an image tokenizer for another size, or what the parts refuse.
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        words: TransformerConfig,
        *,
        image_size: int | Sequence[int] = 256,
        patch_size: int | Sequence[int] = 16,
        text: str = "cross",
        caption_dropout: float = 0.1,
        times: str = "uniform",
        shift: float = 1.0,
        predicts: str = "velocity",
        image_tokenizer: Mapping[str, Any] | None = None,
        quantised: bool = False,
    ) -> None:
        super().__init__()
        check(config, words, text, caption_dropout, times, shift, predicts)
        self.vocab_size, self.joint = vocab_size, text == "joint"
        self.times, self.shift, self.predicts = times, shift, predicts
        self.caption_dropout, self.text_tokens = caption_dropout, words.max_tokens
        self.quantised = quantised
        self.image_size = pair(image_size)
        self.config = config = over_patches(config).replace(
            condition_dim=config.dim,
            cross_attention=not self.joint,
            context_dim=None if self.joint else words.dim,
            final_norm=False,
        )
        if quantised and image_tokenizer is None:
            raise ValueError("quantised=True needs an image tokenizer, whose codes they are.")
        self.image_tokenizer: Any = None
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.latents_seen: Tensor
        if image_tokenizer is not None:
            self.image_tokenizer = owned_tokenizer(image_tokenizer, self.image_size)
            self.register_buffer("latent_mean", torch.zeros(self.channels))
            self.register_buffer("latent_std", torch.ones(self.channels))
            self.register_buffer("latents_seen", torch.zeros((), dtype=torch.long))
        channels, *size = self.shape
        tokens = PatchConfig(class_token=False, channels=channels)
        self.patches = PatchEmbedding(config, size, patch_size, tokens)
        self.patch_size = self.patches.patch_size
        self.time = TimeEmbedding(config.dim)
        self.words = TextEmbedding(vocab_size, words)
        self.reader = Transformer(words)
        self.summary = nn.Linear(words.dim, config.dim)
        self.beside = nn.Linear(words.dim, config.dim) if self.joint else nn.Identity()
        for layer in (self.summary, self.beside):
            if isinstance(layer, nn.Linear):
                init_linear(layer)
        self.transformer = Transformer(config)
        self.head = PatchHead(config, self.patch_size, channels)

    def train(self, mode: bool = True) -> DiT:
        super().train(mode)
        stay_frozen(self.image_tokenizer)
        return self

    @property
    def channels(self) -> int:
        """Of what is drawn: pixels or latents."""
        return 3 if self.image_tokenizer is None else self.image_tokenizer.latent_dim

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)`` of what is drawn."""
        size = self.image_size if self.image_tokenizer is None else self.image_tokenizer.grid
        return (self.channels, *size)

    # --- The velocity ---

    def forward(
        self, noisy: Tensor, time: Tensor, input_ids: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """The velocity ``(batch, channels, height, width)``, of the shape of ``noisy``.

        Args:
            noisy: pixels in -1..1, or latents as :meth:`latents` gives them, part of the way from noise.
            time: ``(batch,)``, in 0..1: how far.
            input_ids: ``(batch, words)``.
            mask: ``(batch, words)``, True = a token, padding may stand left or right; a row without any is
                no caption.

        Raises:
            ValueError: not one caption a picture, a caption longer than ``text_tokens``, or what
                :class:`~family.inputs.patches.PatchEmbedding` refuses.
        """
        if noisy.shape[0] != input_ids.shape[0]:
            raise ValueError(f"{len(noisy)} pictures need as many captions, not {len(input_ids)}.")
        return self.velocity(noisy, time, self.read(input_ids, mask))

    def read(self, input_ids: Tensor, mask: Tensor | None = None) -> Words:
        """What pictures are told of captions; arguments as :meth:`forward`'s."""
        if input_ids.shape[1] > self.text_tokens:
            raise ValueError(
                f"a caption of {input_ids.shape[1]} tokens does not fit text_tokens={self.text_tokens}."
            )
        x, _, positions = self.words.read(input_ids, mask)
        x = self.reader(x, mask=mask, positions=positions)
        return Words(self.beside(x), mask, self.summary(pool_mean(x, mask)))

    def velocity(self, noisy: Tensor, time: Tensor, words: Words, least: float = LEAST) -> Tensor:
        """:meth:`forward` where captions are read already."""
        size = noisy.shape[-2], noisy.shape[-1]
        x = self.patches(noisy)
        condition = self.time(time) + words.pooled
        if not self.joint:
            x = self.transformer(
                x,
                context=words.x,
                context_mask=words.mask,
                positions=self.patches.coordinates(*size),
                condition=condition,
            )
        else:
            mask = None if words.mask is None else F.pad(words.mask, (0, x.shape[1]), value=True)
            both = torch.cat([words.x, x], dim=1)
            x = self.transformer(both, mask=mask, condition=condition)[:, words.x.shape[1] :]
        found = self.head(x, condition, self.patches.grid(*size))
        return found if self.predicts == "velocity" else towards(found, noisy, time, least)

    # --- Training ---

    def losses(
        self, pixel_values: Tensor, input_ids: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """``loss``, of the velocity at a time of each picture.

        Training draws noise, times and the captions that it leaves out anew; evaluation leaves none out
        and has the same noise and times in every call, so that its losses compare.

        Args:
            pixel_values: ``(batch, 3, height, width)`` in -1..1.
            input_ids, mask: ``(batch, words)``.
        """
        if self.image_tokenizer is not None and self.training and not self.latents_seen:
            self.fit_latents(pixel_values)
        data = self.latents(pixel_values)
        generator = None
        if not self.training:
            generator = torch.Generator(data.device).manual_seed(0)
        drawn: dict[str, Any] = {"generator": generator, "device": data.device}
        noise = torch.randn(data.shape, dtype=data.dtype, **drawn)
        time = draw_times(len(data), self.times, self.shift, **drawn)
        if self.training and self.caption_dropout:
            told = torch.rand(len(data), 1, device=data.device) >= self.caption_dropout
            mask = told.expand_as(input_ids) if mask is None else mask & told
        noisy, velocity = straight_path(noise, data, time)
        if self.predicts == "data":  # near the end as its own velocity is
            velocity = towards(data, noisy, time)
        return {"loss": flow_matching_loss(self(noisy, time, input_ids, mask), velocity)}

    @torch.no_grad()
    def latents(self, pixel_values: Tensor) -> Tensor:
        """What is drawn, ``(batch, channels, height, width)``: pixels as they are, or latents, each
        channel of mean 0 and deviation 1."""
        if self.image_tokenizer is None:
            return pixel_values
        found = self.image_tokenizer.encode(pixel_values)
        return (found - each(self.latent_mean)) / each(self.latent_std)

    @torch.no_grad()
    def pixels(self, latents: Tensor) -> Tensor:
        """The way back from :meth:`latents`, cut to -1..1."""
        if self.image_tokenizer is not None:
            found = latents * each(self.latent_std) + each(self.latent_mean)
            latents = self.image_tokenizer.decode_latents(
                found.to(self.latent_mean.dtype), self.quantised
            )
        return latents.clamp(-1, 1)

    @torch.no_grad()
    def fit_latents(self, pixel_values: Tensor) -> None:
        """Keep the mean and the deviation of each channel of the latents of these pictures, of all
        processes together. The first batch of training does so where nobody did before.

        Args:
            pixel_values: ``(batch, 3, height, width)``.
        """
        found = self.image_tokenizer.encode(pixel_values).transpose(0, 1).flatten(1).double()
        moments = torch.stack([torch.ones_like(found), found, found.square()]).sum(2)
        count, total, squares = over_processes(moments)
        mean = total / count
        self.latent_mean.copy_(mean)
        self.latent_std.copy_((squares / count - mean.square()).clamp(min=1e-12).sqrt())
        self.latents_seen.copy_(count[0].long())

    # --- Drawing ---

    @torch.no_grad()
    def draw(
        self,
        input_ids: Tensor,
        mask: Tensor | None = None,
        *,
        guidance: float | None = None,
        steps: int = 25,
        sampler: str = "heun",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """A picture for each caption, ``(batch, 3, height, width)`` in -1..1.

        Args:
            input_ids, mask: ``(batch, words)``, as :meth:`forward`'s.
            guidance: how far the words are overstated, see :func:`~family.generation.flow.guided`; None
                or 1 is as they are said.
            steps, sampler: see :func:`~family.generation.flow.follow`.
            generator: of the noise, on the device of the model.

        Raises:
            ValueError: guidance of a model that never saw a picture without caption; what the sampler or
                :meth:`forward` refuse.
        """
        like = self.summary.weight
        count, overstates = len(input_ids), guides(guidance, self.caption_dropout)
        if overstates:
            input_ids, mask = with_and_without(input_ids, mask)
        words = self.read(input_ids, mask)

        def field(x: Tensor, time: Tensor) -> Tensor:
            return self.velocity(x.to(like.dtype), time, words, 0.0).to(x.dtype)

        # Steps are small, and add up: in float32 at least.
        dtype = torch.promote_types(like.dtype, torch.float32)
        noise = torch.randn(
            count, *self.shape, dtype=dtype, device=like.device, generator=generator
        )
        told = guided(field, float(guidance or 0)) if overstates else field
        times = partial(shifted, shift=self.shift)
        last = "euler" if self.predicts == "data" else None
        return self.pixels(follow(told, noise, steps, sampler, times, last))


def towards(data: Tensor, noisy: Tensor, time: Tensor, least: float = LEAST) -> Tensor:
    """The velocity that leads from ``noisy`` at a time to ``data``, all ``(batch, ...)``; near the end in no less
    than ``least``, as what is off by a little would be off by far there."""
    left = (1 - time).clamp(min=least).view(-1, *[1] * (data.dim() - 1))
    return (data - noisy) / left.to(data.dtype)


def each(of_channels: Tensor) -> Tensor:
    """``(channels,)``, to broadcast with ``(batch, channels, height, width)``."""
    return of_channels.view(-1, 1, 1)


def check(
    config: TransformerConfig,
    words: TransformerConfig,
    text: str,
    caption_dropout: float,
    times: str,
    shift: float,
    predicts: str,
) -> None:
    """What :class:`DiT` refuses of its arguments."""
    asked = (("text", text, WAYS), ("times", times, TIMES), ("predicts", predicts, PREDICTS))
    for name, value, known in asked:
        if value not in known:
            raise ValueError(f"{name}={value!r} is unknown; choose one of: {', '.join(known)}.")
    if not shift > 0:
        raise ValueError(f"shift must be above 0, not {shift!r}.")
    if not 0 <= caption_dropout < 1:
        raise ValueError(f"caption_dropout must be in [0, 1), not {caption_dropout}.")
    if config.causal:
        raise ValueError("DiT's patches see each other: its config needs causal=False.")
    if words.cross_attention or words.condition_dim is not None:
        raise ValueError(
            "DiT's words are read by themselves: their config needs cross_attention=False and no "
            "condition_dim."
        )
    if text == "joint" and config.position == "rotary":
        raise ValueError(
            "position='rotary' is not for words and patches in one stack: choose another, or "
            "text='cross'."
        )
