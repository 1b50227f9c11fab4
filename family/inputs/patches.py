"""Pictures become tokens: a grid of patches, with class and register tokens before it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.core.config import TransformerConfig
from family.core.init import make_norm
from family.inputs.position import (
    LearnedPosition,
    axial_sinusoidal,
    centre_coordinates,
    grid_coordinates,
)
from family.inputs.text import Tokens

POSITIONS = ("none", "sinusoidal", "learned", "rotary")
STEMS = ("patch", "conv")
INTERPOLATIONS: dict[str, dict[str, Any]] = {
    "antialiased": {"mode": "bicubic", "antialias": True},
    "bicubic": {"mode": "bicubic"},
    "bilinear": {"mode": "bilinear"},
    "aligned": {"mode": "bilinear", "align_corners": True},
}
COORDINATES = ("index", "centre")


@dataclasses.dataclass(frozen=True)
class PatchConfig:
    """What a grid of patches, and the tokens before it, may differ in.

    Args:
        class_token: one learned token in front.
        register_tokens: so many learned tokens after it (Darcet et al. 2024).
        prefix_positions: a learned table has rows for class and register tokens too, as in the
            original; False is timm's ``no_embed_class``; "class" gives one to the class token
            alone (DINOv2 with registers).
        stem: "patch" is one linear layer; "conv" first halves the picture by 3x3 convolutions down
            to the patch (Xiao et al. 2021), which learns better from few pictures.
        bias: of the projection (CLIP has none).
        norm: a norm after all (CLIP's ``ln_pre``).
        interpolation: how a learned table follows another size: "antialiased" (bicubic with
            antialiasing, as timm), "bicubic" (as transformers), "bilinear" (as Segmenter) or "aligned"
            (bilinear between the middles of the outermost patches, as ViLT).
        coordinates: where rotary positions stand: "index" counts rows and columns; "centre" measures
            the middle of each patch on a scale of -1..1 over the picture, times 2 pi (DINOv3, Siméoni
            et al. 2025), whatever its size.
        drop_rest: pixels right and below that fill no patch are left out, not refused (SigLIP's 384
            pixels in patches of 14); for the stem "patch".
        channels: of a picture.

    Raises:
        ValueError: an unknown or impossible value, in one sentence.
    """

    class_token: bool = True
    register_tokens: int = 0
    prefix_positions: bool | str = True
    stem: str = "patch"
    bias: bool = True
    norm: bool = False
    interpolation: str = "antialiased"
    coordinates: str = "index"
    drop_rest: bool = False
    channels: int = 3

    def __post_init__(self) -> None:
        if self.prefix_positions not in (True, False, "class"):
            raise ValueError(
                f"prefix_positions={self.prefix_positions!r} is unknown; choose one of: True, False, "
                "class."
            )
        for name, known in (
            ("stem", STEMS),
            ("interpolation", INTERPOLATIONS),
            ("coordinates", COORDINATES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is unknown; choose one of: {', '.join(known)}."
                )
        for name, least in (("register_tokens", 0), ("channels", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        if self.drop_rest and self.stem != "patch":
            raise ValueError(f"drop_rest=True needs stem='patch', not {self.stem!r}.")


class PatchEmbedding(nn.Module):
    """Patches projected, class and register tokens put before them, positions added, dropout
    (Dosovitskiy et al. 2021, section 3.1).

    ``config.position`` says where tokens stand: "learned", a table that follows another picture
    size by interpolation; "sinusoidal", waves of the row in half of the channels and of the column
    in the other (MoCo v3, MAE), nothing on prefix tokens; "rotary", for which the stack needs
    :func:`over_patches` and :meth:`coordinates`; or "none".

    Args:
        config: of the stack that follows: ``dim``, ``position``, ``norm``, ``dropout``.
        image_size: pixels, ``side`` or ``(height, width)``, for which a learned table is made.
        patch_size: pixels, ``side`` or ``(height, width)``.
        patches: the tokens before them, the stem, and where they stand.

    Raises:
        ValueError: a position that has no meaning on a grid, or sizes that do not fit each other, in
            one sentence.
    """

    def __init__(
        self,
        config: TransformerConfig,
        image_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 16,
        patches: PatchConfig = PatchConfig(),
    ) -> None:
        super().__init__()
        check_position(config)
        self.config, self.channels = config, patches.channels
        self.image_size, self.patch_size = pair(image_size), pair(patch_size)
        self.num_prefix_tokens = int(patches.class_token) + patches.register_tokens
        self.interpolation, self.drop_rest = patches.interpolation, patches.drop_rest
        self.place = centre_coordinates if patches.coordinates == "centre" else grid_coordinates
        std = 0.02 if config.init_std is None else config.init_std
        self.stem: nn.Module = nn.Identity()
        if patches.stem == "conv":
            self.stem, width = conv_stem(self.channels, config.dim, self.patch_size)
            self.projection = nn.Conv2d(width, config.dim, 1, bias=patches.bias)
        else:
            self.projection = nn.Conv2d(
                self.channels, config.dim, self.patch_size, self.patch_size, bias=patches.bias
            )
        nn.init.normal_(self.projection.weight, std=self.projection.weight[0].numel() ** -0.5)
        if patches.bias:
            nn.init.zeros_(self.projection.bias)  # type: ignore[arg-type]
        self.prefix = None
        if self.num_prefix_tokens:
            self.prefix = nn.Embedding(self.num_prefix_tokens, config.dim)
            nn.init.normal_(self.prefix.weight, std=std)
        self.position = None
        self.table_grid = self.grid(*self.image_size)
        every, of_class = self.num_prefix_tokens, int(patches.class_token)
        self.prefix_rows = {True: every, False: 0, "class": of_class}[patches.prefix_positions]
        if config.position == "learned":
            rows, columns = self.table_grid
            self.position = LearnedPosition(self.prefix_rows + rows * columns, config.dim)
            nn.init.normal_(self.position.weight, std=std)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = make_norm(config) if patches.norm else nn.Identity()

    def forward(self, pixel_values: Tensor, seen: Tensor | None = None) -> Tensor:
        """``(batch, channels, height, width) -> (batch, prefix + patches, dim)``, row by row.

        Args:
            seen: what :meth:`seen` made of the mask of padded pictures: each then gets the positions
                that it would have alone.

        Raises:
            ValueError: another number of channels, sides that do not divide into patches, or padded
                pictures where a learned table is not interpolated as "aligned".
        """
        batch, channels, height, width = pixel_values.shape
        if channels != self.channels:
            raise ValueError(
                f"pixel_values have {channels} channels, but the model takes {self.channels}."
            )
        rows, columns = self.grid(height, width)
        x = self.projection(self.stem(pixel_values)).flatten(2).transpose(1, 2)
        x = x.to(self.projection.weight.dtype)  # under autocast, as embeddings of text
        prefix = None if self.prefix is None else self.prefix.weight
        if self.position is not None:
            first, table = self._learned(self.position.weight, rows, columns, seen)
            x = x + table
            if prefix is not None and len(first):
                prefix = prefix + F.pad(first, (0, 0, 0, len(prefix) - len(first)))
        elif self.config.position == "sinusoidal":
            grid = grid_coordinates(rows, columns, x.device)
            x = x + axial_sinusoidal(grid, self.config.dim).to(x.dtype)
        if prefix is not None:
            x = torch.cat([prefix.expand(batch, -1, -1), x], dim=1)
        return self.norm(self.dropout(x))

    def read(self, source: Tensor, source_mask: Tensor | None = None) -> Tokens:
        """As a front-end of any stack: :meth:`forward` of pictures, with the mask and the positions of its
        tokens.

        Args:
            source_mask: ``(batch, height, width)``, as :meth:`seen` takes it; None = all is picture.
        """
        seen = None if source_mask is None else self.seen(source_mask)
        mask = None
        if seen is not None:
            mask = F.pad(seen.flatten(1), (self.num_prefix_tokens, 0), value=True)
        return Tokens(self(source, seen), mask, self.coordinates(*source.shape[-2:]))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """``(rows, columns)`` of patches in a picture.

        Raises:
            ValueError: the sides are not multiples of the patch's, or less than it.
        """
        down, across = self.patch_size
        rest = not self.drop_rest and (height % down or width % across)
        if height < down or width < across or rest:
            raise ValueError(
                f"a picture of {height} x {width} pixels does not divide into patches of "
                f"{down} x {across}: its sides must be multiples of theirs."
            )
        return height // down, width // across

    def coordinates(self, height: int, width: int) -> Tensor | None:
        """The stack's ``positions`` ``(prefix + patches, 2)``, row and column; prefix tokens have 0.

        None unless positions are rotary.
        """
        if self.config.position != "rotary":
            return None
        grid = self.place(*self.grid(height, width), self.projection.weight.device)
        return F.pad(grid, (0, 0, self.num_prefix_tokens, 0))

    def seen(self, pixel_mask: Tensor) -> Tensor:
        """The patches that begin in their picture, ``(batch, rows, columns)``.

        Args:
            pixel_mask: ``(batch, height, width)``, True = picture, which stands at the top left.
        """
        size = self.grid(*pixel_mask.shape[-2:])
        return F.interpolate(pixel_mask[:, None].float(), size)[:, 0] > 0

    def resize(self, image_size: int | Sequence[int]) -> None:
        """Make the table of learned positions anew for another size of pictures, by interpolation.

        Raises:
            ValueError: the size does not divide into patches.
        """
        size = pair(image_size)
        grid = self.grid(*size)
        if self.position is not None and grid != self.table_grid:
            with torch.no_grad():
                table = torch.cat(self._learned(self.position.weight, *grid))
            self.position = LearnedPosition(len(table), self.config.dim, _weight=table)
        self.image_size, self.table_grid = size, grid

    def _learned(
        self, table: Tensor, rows: int, columns: int, seen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Positions ``(prefix or 0, dim)`` and ``(rows * columns, dim)``, or of padded pictures
        ``(batch, rows * columns, dim)``."""
        first, body = table[: self.prefix_rows], table[self.prefix_rows :]
        if seen is None and (rows, columns) == self.table_grid:
            return first, body
        # At least float32, as bicubic weights in half precision would blur the table.
        working = body.to(torch.promote_types(body.dtype, torch.float32))
        if seen is not None:
            if self.interpolation != "aligned":
                raise ValueError(
                    "learned positions of padded pictures need interpolation='aligned', not "
                    f"{self.interpolation!r}."
                )
            return first, aligned(working.unflatten(0, self.table_grid), seen).to(body.dtype)
        picture = working.T.unflatten(1, self.table_grid)[None]
        resized = F.interpolate(picture, (rows, columns), **INTERPOLATIONS[self.interpolation])
        return first, resized[0].flatten(1).T.to(body.dtype)


def over_patches(config: TransformerConfig) -> TransformerConfig:
    """The config of a stack over patches: rotary positions have two axes, row and column."""
    return config.replace(rotary_axes=2) if config.position == "rotary" else config


def conv_stem(channels: int, dim: int, patch_size: tuple[int, int]) -> tuple[nn.Sequential, int]:
    """3x3 convolutions of stride 2 with batch norm, each twice as wide as the one before.

    Returns:
        ``(batch, channels, height, width) -> (batch, width, rows, columns)``, and that width.

    Raises:
        ValueError: the patch is not a square of 2, 4, 8 ... pixels.
    """
    side = patch_size[0]
    if patch_size[1] != side or side < 2 or side & (side - 1):
        raise ValueError(
            f"stem='conv' halves the picture step by step: patch_size must be 2, 4, 8, 16 ..., "
            f"not {patch_size[0]} x {patch_size[1]}."
        )
    layers: list[nn.Module] = []
    steps = side.bit_length() - 1
    for step in reversed(range(steps)):
        width = max(1, dim >> step)
        convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers), channels


def aligned(table: Tensor, seen: Tensor) -> Tensor:
    """A table of positions, stretched over each of several padded pictures: what bilinear
    interpolation with ``align_corners`` gives for them one by one.

    Args:
        table: ``(height, width, dim)``.
        seen: ``(batch, rows, columns)``, True = picture, which stands at the top left.

    Returns:
        ``(batch, rows * columns, dim)``; what it says of padding means nothing.
    """
    weights = []
    for count, side, cells in (
        (seen[:, :, 0].sum(1), table.shape[0], seen.shape[1]),
        (seen[:, 0].sum(1), table.shape[1], seen.shape[2]),
    ):
        step = (side - 1) / (count - 1).clamp(min=1).to(table.dtype)
        places = step[:, None] * torch.arange(cells, device=seen.device)
        distance = places[..., None] - torch.arange(side, device=seen.device)
        weights.append((1 - distance.abs()).clamp(min=0))
    return torch.einsum("brh,bcw,hwd->brcd", *weights, table).flatten(1, 2)


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """``(height, width)`` from itself or from the side of a square.

    Raises:
        ValueError: not one or two positive numbers.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"a size must be a positive number or (height, width), not {size!r}.")
    return sides[0], sides[1]


def covering(size: tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """The smallest ``(height, width)`` that contains ``size`` and divides into patches."""
    height, width = (
        -(-side // patch) * patch for side, patch in zip(size, patch_size, strict=True)
    )
    return height, width


def check_position(config: TransformerConfig) -> None:
    """What a grid of patches refuses, see :class:`PatchEmbedding`."""
    if config.position not in POSITIONS:
        raise ValueError(
            f"position={config.position!r} is for sequences; patches take one of: "
            f"{', '.join(POSITIONS)}."
        )
    if config.position == "sinusoidal" and config.dim % 4:
        raise ValueError(
            f"sinusoidal positions of rows and columns need a dim that divides by 4, not {config.dim}."
        )
