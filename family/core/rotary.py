"""Rotary positions: queries and keys turn by an angle that grows with position."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

SCALINGS = ("linear", "llama3", "yarn", "longrope")


@dataclass(frozen=True)
class RotaryScaling:
    """How frequencies change for contexts longer than those of pre-training.

    - "linear": all are divided by ``factor`` (position interpolation, Chen et al. 2023).
    - "llama3": pairs of channels that turn fewer than ``low`` times in ``tokens`` are divided, those
      that turn more than ``high`` times stay, and those between are mixed (Llama 3.1, whose configs
      call the two low_freq_factor and high_freq_factor).
    - "yarn": the same, mixed by the number of the pair (YaRN, Peng et al. 2023, section 3.2; beta_slow
      and beta_fast), between whole ones unless ``truncate`` is False.
    - "longrope": each pair is divided by its own number, of ``short`` up to ``tokens`` tokens and of
      ``long`` beyond (LongRoPE, Ding et al. 2024).

    ``magnitude`` is a factor on cosines and sines, and so, squared, on the scores (YaRN, section 3.3).
    """

    kind: str
    factor: float = 1.0
    tokens: int = 0
    low: float = 1.0
    high: float = 4.0
    magnitude: float = 1.0
    short: tuple[float, ...] = ()
    long: tuple[float, ...] = ()
    truncate: bool = True

    def __post_init__(self) -> None:
        for name in ("short", "long"):  # lists from JSON or YAML
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @classmethod
    def llama3(cls, factor: float, low: float, high: float, tokens: float) -> RotaryScaling:
        """Llama 3.1's, from its four numbers."""
        return cls("llama3", factor, int(tokens), low, high)

    def check(self, dim: int) -> None:
        """Refuse (ValueError) what scales nothing, for heads of which ``dim`` channels turn."""
        if self.kind not in SCALINGS:
            raise ValueError(
                f"rotary_scaling: kind={self.kind!r} is unknown; choose one of: {', '.join(SCALINGS)}."
            )
        for name in ("short", "long") if self.kind == "longrope" else ():
            if len(getattr(self, name)) != dim // 2 or min(getattr(self, name)) <= 0:
                raise ValueError(
                    f"rotary_scaling: {name} must be {dim // 2} numbers over 0, one for each pair of "
                    f"channels, not {len(getattr(self, name))}."
                )
        numbers = {"linear": [], "longrope": ["tokens"]}.get(self.kind, ["tokens", "low", "high"])
        for name in ["factor", "magnitude", *numbers]:
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"rotary_scaling: {name}={value!r} must be a number over 0.")
        if "low" in numbers and self.low >= self.high:
            raise ValueError(f"rotary_scaling: low={self.low} must be under high={self.high}.")


Scaling = float | RotaryScaling | None


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021).

    Channel ``i`` turns together with channel ``i + dim / 2``, the layout of GPT-NeoX and of Llama in
    transformers. Over several axes, each axis turns an equal share of these pairs by a coordinate of
    its own (axial rotary, Heo et al. 2024), in the layout of DINOv3.

    Args:
        dim: channels that turn, the first of each head.
        base, scaling: see :func:`rotary_frequency`.
        axes: coordinates of a token.
    """

    def __init__(
        self, dim: int, base: float = 10_000.0, axes: int = 1, scaling: Scaling = None
    ) -> None:
        super().__init__()
        self.axes = axes
        self.magnitude, self.limit = 1.0, None
        if isinstance(scaling, RotaryScaling):
            self.magnitude = scaling.magnitude
            self.limit = scaling.tokens if scaling.kind == "longrope" else None
        self._frequency = partial(rotary_frequency, dim // axes, base, scaling)
        self.register_buffer("frequency", self._frequency(), persistent=False)
        self.frequency: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rotary:
        """Moves to a device as any module, but stays exact where the model becomes bfloat16."""
        super()._apply(fn, recurse)
        self.frequency = self._frequency().to(self.frequency.device)
        return self

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine for positions ``(tokens)`` or ``(batch, tokens)``.

        Args:
            positions: with several axes ``(tokens, axes)`` or ``(batch, tokens, axes)``.

        Returns:
            two tensors that broadcast with ``(batch, heads, tokens, dim)``.

        Raises:
            ValueError: the last dimension of ``positions`` is not that of the axes.
        """
        if self.axes == 1:
            positions = positions.unsqueeze(-1)
        elif positions.shape[-1] != self.axes:
            raise ValueError(
                f"rotary_axes={self.axes} needs positions (..., tokens, {self.axes}), "
                f"not {tuple(positions.shape)}."
            )
        # Angles in float32 at least: in bf16 positions past 256 would fall together.
        frequency = self.frequency.to(torch.promote_types(dtype, torch.float32))
        if self.limit is not None:
            # Row by row, so that no text changes with its neighbours in a batch.
            beyond = positions.amax(-2, keepdim=True) >= self.limit
            frequency = torch.where(beyond.unsqueeze(-1), frequency[1], frequency[0])
        angles = (positions.unsqueeze(-1) * frequency).flatten(-2)
        angles = torch.cat([angles, angles], dim=-1)
        if angles.dim() == 3:
            angles = angles.unsqueeze(1)
        cos, sin = angles.cos(), angles.sin()
        if self.magnitude != 1:
            cos, sin = cos * self.magnitude, sin * self.magnitude
        return cos.to(dtype), sin.to(dtype)


def apply_rotary(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn ``(batch, heads, tokens, head_dim)`` by the angles that :class:`Rotary` returned.

    Where these are fewer than ``head_dim``, the channels behind them stay as they are.
    """
    cos, sin = rotary
    turning = cos.shape[-1]
    if turning < x.shape[-1]:
        return torch.cat([apply_rotary(x[..., :turning], rotary), x[..., turning:]], dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def rotary_frequency(dim: int, base: float = 10_000.0, scaling: Scaling = None) -> Tensor:
    """Radians a position for each pair of channels, ``(dim / 2)`` in float32, fast ones first; for
    "longrope" ``(2, dim / 2)``, within the context of pre-training and beyond.

    Args:
        scaling: see :class:`RotaryScaling`; a number is "linear".
    """
    # Each kind in the order of the published code, to round as it does.
    exponents = float(base) ** (torch.arange(0, dim, 2).float() / dim)
    frequency = 1.0 / exponents
    if not isinstance(scaling, RotaryScaling):
        return frequency if scaling is None else frequency / scaling
    if scaling.kind == "linear":
        return frequency / scaling.factor
    if scaling.kind == "longrope":
        return 1.0 / (torch.tensor([scaling.short, scaling.long], dtype=torch.float32) * exponents)
    if scaling.kind == "llama3":
        turns = scaling.tokens / (2 * math.pi / frequency)
        kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
        return (1 - kept) * frequency / scaling.factor + kept * frequency
    # The pairs that turn exactly `high` and `low` times in the context of pre-training.
    first, last = (
        dim * math.log(scaling.tokens / (turns * 2 * math.pi)) / (2 * math.log(base))
        for turns in (scaling.high, scaling.low)
    )
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, dim - 1)
    if first == last:
        last += 0.001
    kept = 1 - ((torch.arange(dim // 2).float() - first) / (last - first)).clamp(0, 1)
    return 1.0 / (scaling.factor * exponents) * (1 - kept) + frequency * kept
