"""Numeric series become tokens, and the numbers that a model gives those of the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from family.core.config import TransformerConfig
from family.core.init import init_linear
from family.inputs.position import make_position
from family.inputs.text import Tokens

Steps = Any
"""A series: its steps, each a number for each channel, as lists, an array or a tensor ``(steps, channels)``; or
of each channel, by its name, a list of its steps."""


@dataclass(frozen=True)
class SeriesPreprocess:
    """How a series is shown to a model, and what its answers say; a checkpoint carries it.

    Args:
        channels: their names, in the order in which a model sees them.
        channel_mean, channel_std: of each over the steps of training.
        targets: the names of the numbers that a model gives; none where it tells classes apart.
        target_mean, target_std: of each over the series of training.
        horizon: so many steps of each target follow the series; 0 is one number of a whole series.
        fill: a missing value (NaN) is that of the step before, or else the mean, and a further channel for
            each says by 1 where it was missing; without it such a series is refused.
        max_steps: of a longer series the last so many are shown; None is all.
    """

    channels: tuple[str, ...]
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    targets: tuple[str, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    horizon: int = 0
    fill: bool = False
    max_steps: int | None = None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SeriesPreprocess:
        """From plain values, as ``dataclasses.asdict`` and a file of JSON have them."""
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(fields.keys() - names)
        if unknown:
            raise ValueError(f"preprocess of series has the unknown field {unknown[0]!r}.")
        known: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()
        }
        return cls(**known)

    @property
    def width(self) -> int:
        """The channels that a model sees."""
        return len(self.channels) * (2 if self.fill else 1)

    def array(self, series: Steps, name: str = "the series") -> np.ndarray:
        """A series as it was given, ``(steps, channels)`` float64 with NaN where a value is missing.

        Raises:
            ValueError: other channels, no step, or what is no number.
        """
        if isinstance(series, Mapping):
            missing = [channel for channel in self.channels if channel not in series]
            if missing:
                raise ValueError(f"{name} has no channel {missing[0]!r}.")
            columns = [np.ravel(series[channel]) for channel in self.channels]
            if len({len(column) for column in columns}) > 1:
                raise ValueError(f"{name} has channels of unequal length.")
            series = np.stack(columns, 1)
        if isinstance(series, Tensor):
            series = series.detach().cpu().numpy()
        try:
            found = np.asarray(series, np.float64)
        except (TypeError, ValueError):
            raise ValueError(f"{name} is no array of numbers (steps, channels).") from None
        if found.ndim == 1 and len(self.channels) == 1:
            found = found[:, None]
        if found.ndim != 2 or found.shape[1] != len(self.channels) or not len(found):
            raise ValueError(
                f"{name} is {found.shape}, but must be (steps, {len(self.channels)}): one step at least, and "
                f"the channels {', '.join(self.channels)}."
            )
        return found

    def __call__(self, series: Steps, name: str = "the series") -> Tensor:
        """What a model sees of a series: ``(steps, width)`` float32.

        Raises:
            ValueError: see :meth:`array`; a value that is missing or infinite.
        """
        found = self.array(series, name)
        if self.max_steps is not None:
            found = found[-self.max_steps :]
        gaps = np.isnan(found)
        if gaps.any() and not self.fill:
            step, channel = np.argwhere(gaps)[0].tolist()
            raise ValueError(
                f"{name} has no number at step {step} of {self.channels[channel]!r}, and the model was "
                "trained on series without gaps (data.missing=fill)."
            )
        if np.isinf(found).any():
            raise ValueError(f"{name} has a number that is not finite.")
        scaled = (found - self.channel_mean) / self.channel_std
        if self.fill:
            scaled = np.concatenate([filled(scaled), gaps], 1)
        return torch.from_numpy(scaled.astype(np.float32))

    def learnt(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers ``(examples, targets, ...)`` as a model learns them: of mean 0 and deviation 1."""
        return (numbers - self._wide(self.target_mean, numbers)) / self._wide(
            self.target_std, numbers
        )

    def restored(self, numbers: np.ndarray) -> np.ndarray:
        """The contrary of :meth:`learnt`."""
        return numbers * self._wide(self.target_std, numbers) + self._wide(
            self.target_mean, numbers
        )

    def by_target(self, numbers: Tensor) -> Tensor:
        """What a model gives ``(batch, targets * steps)``, as ``(batch, targets, steps)``."""
        return numbers.unflatten(1, (max(1, len(self.targets)), -1))

    def said(self, numbers: Tensor) -> list[dict[str, Any]]:
        """What a model says, in the data's own unit: of each series a number by target or, with a horizon,
        the list of those that follow."""
        rows = self.restored(self.by_target(numbers.double().cpu()).numpy())
        return [
            {
                name: [rounded(one) for one in row] if self.horizon else rounded(row[0])
                for name, row in zip(self.targets, found, strict=True)
            }
            for found in rows
        ]

    @staticmethod
    def _wide(values: Sequence[float], like: np.ndarray) -> np.ndarray:
        return np.asarray(values).reshape(-1, *[1] * (like.ndim - 2))


def rounded(value: float) -> float:
    """To seven digits, as many as float32 has."""
    return float(f"{value:.7g}")


def filled(values: np.ndarray) -> np.ndarray:
    """``(steps, channels)``, with the value of the last step that has one in the place of NaN; 0 before."""
    there = ~np.isnan(values)
    last = np.maximum.accumulate(np.where(there, np.arange(len(values))[:, None], -1), 0)
    found = np.take_along_axis(values, last.clip(min=0), 0)
    return np.where(last < 0, 0.0, found)


def series_batch(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Series ``(steps, width)`` of unequal length as ``values (batch, steps, width)``, zeros behind each,
    and ``step_mask (batch, steps)`` bool, True = a step."""
    lengths = torch.tensor([len(row) for row in rows])
    values = pad_sequence(list(rows), batch_first=True)
    return values, torch.arange(values.shape[1]) < lengths[:, None]


class SeriesEmbedding(nn.Module):
    """Patches of steps projected (Nie et al. 2023, section 3.1, here all channels of a patch together),
    position added, dropout.

    Args:
        channels: numbers of a step.
        config: of the stack that follows: ``dim``, ``position``, ``max_tokens``, ``dropout``.
        patch_size: steps of a token; the last one is filled up with zeros.
    """

    def __init__(self, channels: int, config: TransformerConfig, patch_size: int = 1) -> None:
        super().__init__()
        if channels < 1 or patch_size < 1:
            raise ValueError(f"channels={channels} and patch_size={patch_size} must be at least 1.")
        self.channels, self.patch_size = channels, patch_size
        self.projection = nn.Linear(patch_size * channels, config.dim)
        init_linear(self.projection, (patch_size * channels) ** -0.5)
        self.position = make_position(config, config.dim)
        self.max_tokens = config.max_tokens
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, values: Tensor, step_mask: Tensor | None = None) -> Tokens:
        """``(batch, steps, channels)`` -> ``(batch, tokens, dim)`` and their mask; what is padding counts as
        zeros.

        Raises:
            ValueError: other channels, or more steps than there are positions.
        """
        if values.dim() != 3 or values.shape[2] != self.channels:
            raise ValueError(
                f"the model takes series (batch, steps, {self.channels}), not {tuple(values.shape)}."
            )
        mask = None
        if step_mask is not None:
            values = values.masked_fill(~step_mask[..., None], 0.0)
        steps = values.shape[1]
        more = -steps % self.patch_size
        patches = nn.functional.pad(values, (0, 0, 0, more)).unflatten(1, (-1, self.patch_size))
        if step_mask is not None:
            mask = nn.functional.pad(step_mask, (0, more)).unflatten(1, (-1, self.patch_size))
            mask = mask.any(-1)
        x = self.projection(patches.flatten(2)).to(self.projection.weight.dtype)
        if self.position is not None:
            if x.shape[1] > self.max_tokens:
                raise ValueError(
                    f"a series of {steps} steps is {x.shape[1]} tokens, but the model has positions for "
                    f"{self.max_tokens}: a larger config.max_tokens or patch_size, or data.max_steps."
                )
            x = x + self.position(torch.arange(x.shape[1], device=x.device)).to(x.dtype)
        return Tokens(self.dropout(x), mask, None)
