"""Pictures as tokens and back: convolutions around a codebook (VQ-VAE, van den Oord et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from family.inputs.codebook import CodebookConfig, make_codebook
from family.inputs.patches import pair
from family.models.examples import RECONSTRUCTIONS
from family.models.member import member

GROUPS = 8
"""Of channels that a norm takes together."""
DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss}


class Reconstruction(NamedTuple):
    """What became of pictures.

    Args:
        pixel_values: ``(batch, 3, height, width)``, as those that were given.
        ids: ``(batch, rows * columns)`` int64, row by row.
        commitment: how far latents are from their codes, weighted.
    """

    pixel_values: Tensor
    ids: Tensor
    commitment: Tensor


@member(
    task="ImageTokenizing",
    reads=("pictures",),
    inputs=RECONSTRUCTIONS,
    example={
        "image_size": 16,
        "downsampling": 4,
        "width": 8,
        "depth": 1,
        "codebook": CodebookConfig(size=20, dim=4),
    },
    variants=(
        {"codebook": CodebookConfig("rotation", size=20, dim=4)},
        {"codebook": CodebookConfig("fsq", levels=(5, 4)), "kernel_size": 1, "patch_size": 4},
    ),
)
class ImageTokenizer(nn.Module):
    """Squares of pixels -> residual convolutions, the picture halved between them -> a vector a token ->
    its code; and the same backwards. Norms are of groups of channels.

    ``vocab_size`` codes, ``grid`` (rows, columns) of tokens, ``image_size`` (height, width) in pixels and
    ``latent_dim`` numbers a vector are what others need of it.

    Args:
        image_size: pixels, ``side`` or ``(height, width)``, multiples of ``downsampling``.
        downsampling: pixels of a token's side, 4 or 8.
        patch_size: the first step: squares of so many pixels become channels, which makes convolutions on
            large pictures cheaper; 1, 2, 4 ... up to ``downsampling``.
        width: channels after that, doubled wherever the picture is halved; a multiple of 8.
        depth: residual blocks at each size.
        distance: of pixels, "l1" or "l2".
        kernel_size: of the convolutions, 3; or 1, and a token is of its own square of pixels alone, see
            :class:`Squares`: of drawn pictures, whose squares are often the same, a code each. That needs
            ``patch_size`` to be ``downsampling``.
        codebook: its kind and size.

    Raises:
        ValueError: a size that does not divide, or another impossible value, in one sentence.
    """

    def __init__(
        self,
        image_size: int | Sequence[int] = 48,
        downsampling: int = 8,
        patch_size: int = 2,
        width: int = 64,
        depth: int = 2,
        distance: str = "l1",
        *,
        kernel_size: int = 3,
        codebook: CodebookConfig = CodebookConfig(),
    ) -> None:
        super().__init__()
        check(downsampling, patch_size, width, depth, distance, kernel_size)
        height, width_in_pixels = self.image_size = pair(image_size)
        if height % downsampling or width_in_pixels % downsampling or min(self.image_size) < 1:
            near = tuple(
                max(1, round(side / downsampling)) * downsampling for side in self.image_size
            )
            raise ValueError(
                f"image_size={self.image_size} does not divide into tokens of downsampling="
                f"{downsampling} pixels: {near} would."
            )
        self.grid = height // downsampling, width_in_pixels // downsampling
        self.vocab_size, self.latent_dim = codebook.vocab_size, codebook.latent_dim
        self.distance = distance
        halvings = (downsampling // patch_size).bit_length() - 1
        channels = [width << i for i in range(halvings + 1)]
        self.codebook = make_codebook(codebook)  # before others: what it refuses says most
        self.encoder: nn.Module
        self.decoder: nn.Module
        if kernel_size == 1:
            pixels = 3 * patch_size**2
            self.encoder = nn.Sequential(
                nn.PixelUnshuffle(patch_size), Squares(pixels, width, depth, self.latent_dim)
            )
            self.decoder = nn.Sequential(
                Squares(self.latent_dim, width, depth, pixels), nn.PixelShuffle(patch_size)
            )
        else:
            self.encoder = make_encoder(channels, depth, patch_size, self.latent_dim)
            self.decoder = make_decoder(channels[::-1], depth, patch_size, self.latent_dim)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """``(batch, 3, height, width)`` in -1..1 -> the same, through the codebook."""
        return self.reconstruct(pixel_values).pixel_values

    def reconstruct(self, pixel_values: Tensor) -> Reconstruction:
        """As :meth:`forward`, with what lies between; in training the codebook learns from it."""
        made = self.codebook(self.encode(pixel_values))
        return Reconstruction(self.decoder(made.latents), made.ids, made.commitment)

    def losses(self, pixel_values: Tensor, made: Reconstruction | None = None) -> dict[str, Tensor]:
        """``loss``, the sum of ``reconstruction`` and ``commitment``.

        Args:
            made: what :meth:`reconstruct` made of them, where that is known.
        """
        made = self.reconstruct(pixel_values) if made is None else made
        distance = DISTANCES[self.distance](made.pixel_values.float(), pixel_values.float())
        loss = distance + made.commitment
        return {"loss": loss, "reconstruction": distance, "commitment": made.commitment}

    def encode(self, pixel_values: Tensor) -> Tensor:
        """Latents ``(batch, latent_dim, rows, columns)`` before the codebook.

        Raises:
            ValueError: pictures of another size.
        """
        size = tuple(pixel_values.shape[-2:])
        if size != self.image_size:
            raise ValueError(
                f"pictures of {size[0]} x {size[1]} pixels for a tokenizer of {self.image_size[0]} x "
                f"{self.image_size[1]}: resize them."
            )
        return self.encoder(pixel_values)

    def decode_latents(self, latents: Tensor, quantised: bool = False) -> Tensor:
        """``(batch, 3, height, width)`` of latents as :meth:`encode` gives them, at their codes or at none."""
        if quantised:
            return self.decode(self.codebook.ids(latents))
        return self.decoder(self.codebook.continuous(latents))

    def tokenize(self, pixel_values: Tensor) -> Tensor:
        """Ids ``(batch, rows * columns)`` int64, row by row; nothing is learnt."""
        return self.codebook.ids(self.encode(pixel_values))

    def decode(self, ids: Tensor) -> Tensor:
        """``(batch, 3, height, width)`` of ids ``(batch, rows * columns)``.

        Raises:
            ValueError: more or fewer ids than a picture has, or one that no code has.
        """
        rows, columns = self.grid
        if ids.dim() != 2 or ids.shape[1] != rows * columns:
            raise ValueError(
                f"ids of shape {tuple(ids.shape)}: a picture has {rows} x {columns} tokens, so that "
                f"(batch, {rows * columns}) is wanted."
            )
        latents = self.codebook.vectors(ids).transpose(1, 2).unflatten(2, self.grid)
        return self.decoder(latents.to(next(self.decoder.parameters()).dtype))


class Residual(nn.Module):
    """Two 3x3 convolutions beside what goes past them: ``(batch, channels, height, width)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *(part for _ in range(2) for part in (*normed(channels), conv(channels, channels)))
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Squares(nn.Module):
    """Of each place alone a linear map, and what a residual network adds to it, at first nothing:
    ``(batch, before, rows, columns) -> (batch, after, rows, columns)``."""

    def __init__(self, before: int, width: int, depth: int, after: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after)
        self.first = nn.Linear(before, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(
                    part
                    for _ in range(2)
                    for part in (nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width))
                )
            )
            for _ in range(depth)
        )
        last = nn.Linear(width, after)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.last = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1)
        hidden = self.first(x)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return (self.linear(x) + self.last(hidden)).movedim(-1, 1)


def make_encoder(channels: Sequence[int], depth: int, patch_size: int, dim: int) -> nn.Sequential:
    """``(batch, 3, height, width) -> (batch, dim, rows, columns)``, as wide at each size as ``channels``."""
    parts: list[nn.Module] = [nn.PixelUnshuffle(patch_size), conv(3 * patch_size**2, channels[0])]
    for i, wide in enumerate(channels):
        if i:
            parts.append(conv(channels[i - 1], wide, stride=2))
        parts += [Residual(wide) for _ in range(depth)]
    return nn.Sequential(*parts, *normed(channels[-1]), nn.Conv2d(channels[-1], dim, 1))


def make_decoder(channels: Sequence[int], depth: int, patch_size: int, dim: int) -> nn.Sequential:
    """``(batch, dim, rows, columns) -> (batch, 3, height, width)``."""
    parts: list[nn.Module] = [conv(dim, channels[0])]
    for i, wide in enumerate(channels):
        if i:
            parts += [nn.Upsample(scale_factor=2), conv(channels[i - 1], wide)]
        parts += [Residual(wide) for _ in range(depth)]
    last = conv(channels[-1], 3 * patch_size**2)
    return nn.Sequential(*parts, *normed(channels[-1]), last, nn.PixelShuffle(patch_size))


def normed(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(GROUPS, channels), nn.SiLU()


def conv(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride, padding=1)


def check(
    downsampling: int, patch_size: int, width: int, depth: int, distance: str, kernel_size: int
) -> None:
    """Refuse impossible sizes.

    Raises:
        ValueError: see above.
    """
    if downsampling not in (4, 8):
        raise ValueError(f"downsampling must be 4 or 8, not {downsampling}.")
    if patch_size < 1 or downsampling % patch_size:
        raise ValueError(
            f"patch_size={patch_size} must divide downsampling={downsampling}: 1, 2, 4 ..."
        )
    if width < 1 or width % GROUPS:
        raise ValueError(f"width must be a multiple of {GROUPS}, not {width}.")
    if depth < 0:
        raise ValueError(f"depth must be at least 0, not {depth}.")
    if kernel_size not in (1, 3):
        raise ValueError(f"kernel_size must be 1 or 3, not {kernel_size}.")
    if kernel_size == 1 and patch_size != downsampling:
        raise ValueError(
            f"kernel_size=1 looks at each square of downsampling={downsampling} pixels alone: patch_size must be "
            f"that too, not {patch_size}."
        )
    if distance not in DISTANCES:
        raise ValueError(
            f"distance={distance!r} is unknown; choose one of: {', '.join(DISTANCES)}."
        )
