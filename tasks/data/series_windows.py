"""What of a series is shown and what is foretold, in which split; and the numbers that all are scaled by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from family.inputs.series import SeriesPreprocess, filled
from tasks.data.series_files import Series
from tasks.errors import UserError

LEAST = 1e-12
"""A deviation below this share of the mean is none but rounding."""


class Span(NamedTuple):
    """A series, and from which of its steps to which it is a split's."""

    series: Series
    first: int
    last: int

    @classmethod
    def whole(cls, series: Series) -> Span:
        return cls(series, 0, len(series.values))

    @property
    def values(self) -> np.ndarray:
        return self.series.values[self.first : self.last]


class Example(NamedTuple):
    """What a model is shown, and what it is to say."""

    name: str
    seen: np.ndarray
    """``(steps, channels)``, as stored."""
    label: Any
    """A class, or numbers as a model learns them; None where it is not known."""
    naive: np.ndarray | None = None
    step: str = ""


def divided(series: Sequence[Series], shares: Mapping[str, float]) -> dict[str, list[Span]]:
    """Each series in parts by time: first training, then validation, last the test."""
    found: dict[str, list[Span]] = {"train": [], **{name: [] for name in shares}}
    for one in series:
        count = len(one.values)
        test = count - round(shares.get("test", 0.0) * count)
        val = test - round(shares.get("val", 0.0) * count)
        edges = {"train": (0, val), "val": (val, test), "test": (test, count)}
        for split, spans in found.items():
            if edges[split][0] < edges[split][1]:
                spans.append(Span(one, *edges[split]))
    return found


def scale(
    spans: Sequence[Span], targets: Sequence[str], horizon: int, fill: bool, max_steps: int | None
) -> SeriesPreprocess:
    """How series are shown, by the training split.

    Raises:
        UserError: a channel without any value.
    """
    channels = spans[0].series.channels
    values = np.concatenate([span.values for span in spans])
    for channel, column in zip(channels, values.T, strict=True):
        if np.isnan(column).all():
            raise UserError(
                f"{spans[0].series.where}: the channel {channel!r} has no value in train."
            )
    mean, std = moments(values)
    if horizon:
        chosen = [channels.index(name) for name in targets]
        of_targets = tuple(mean[i] for i in chosen), tuple(std[i] for i in chosen)
    elif targets:
        of_targets = moments(np.array([span.series.numbers for span in spans]))
    else:
        of_targets = (), ()
    return SeriesPreprocess(
        channels, mean, std, tuple(targets), *of_targets, horizon, fill, max_steps
    )


def moments(values: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each column ``(rows, columns)``, NaN left out; the deviation of what is constant
    is 1."""
    mean = np.nanmean(values, 0)
    std = np.nanstd(values, 0)
    std = np.where(std <= LEAST * np.abs(mean), 1.0, std)
    return tuple(mean.tolist()), tuple(std.tolist())


def windows(
    spans: Sequence[Span], preprocess: SeriesPreprocess, window: int, season: int, split: str
) -> list[Example]:
    """All windows whose next steps lie in the split; those with a gap in what is to be foretold are left out.

    Raises:
        UserError: there are none.
    """
    found = [one for span in spans for one in windows_of(span, preprocess, window, season)]
    if not found:
        longest = max(len(span.series.values) for span in spans)
        raise UserError(
            f"no window of data.window={window} steps and the next data.horizon={preprocess.horizon} fits into "
            f"{split}: the longest series has {longest} steps, of which {split} has a part."
        )
    return found


def windows_of(
    span: Span, preprocess: SeriesPreprocess, window: int, season: int
) -> Iterator[Example]:
    horizon, values = preprocess.horizon, span.series.values
    chosen = [preprocess.channels.index(name) for name in preprocess.targets]
    learnt = preprocess.learnt(values[:, chosen])
    # The value of a season before; where the season is shorter than the horizon, again and again.
    back = np.arange(horizon) % season - season
    for start in range(max(0, span.first - window), span.last - window - horizon + 1):
        edge = start + window
        true = learnt[edge : edge + horizon]
        if np.isnan(true).any():
            continue
        naive = filled(learnt[start:edge])[back]
        label, simple = (one.T.ravel().astype(np.float32) for one in (true, naive))
        step = span.series.times[edge] if span.series.times else str(edge)
        yield Example(span.series.name, values[start:edge], label, simple, step)
