"""Numeric series with a class or numbers each, and series that are to be gone on with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from family.heads.problem import REGRESSION
from family.inputs.series import SeriesPreprocess, series_batch
from tasks.data import series_shapes
from tasks.data.base import FamilyData
from tasks.data.captions import TABLES, table_rows
from tasks.data.kept import as_files
from tasks.data.sampling import ExampleBatches, Pick, batch_loader
from tasks.data.series_files import LABEL_COLUMNS, Columns, Series, read_series
from tasks.data.series_windows import Example, Span, divided, scale, windows
from tasks.data.split_files import own_file, shared_file
from tasks.data.splits import SPLITS, divide, nothing_held_out, shares_of
from tasks.data.stored import Stored
from tasks.errors import UserError, at_least, closest, some_of

NAMES = {name: name for name in SPLITS}


class SeriesData(FamilyData):
    """Numeric series of any length and number of channels: with a class each, with numbers each
    (``target_columns``), or to be gone on with (``horizon``).

    A batch:

    - ``values (batch, steps, channels)`` float32: each channel less its mean, by its deviation, over the
      training split; zeros behind shorter series. With ``missing: fill`` twice as many channels, the latter 1
      where a value was missing;
    - ``step_mask (batch, steps)`` bool: True = a step;
    - ``labels (batch,)`` int64: ids of classes; of numbers and forecasts ``labels (batch, targets * steps)``
      float32, of mean 0 and deviation 1 in training, those of a target one after the other;
    - ``series``: their names; of forecasts ``step``, the first one that is foretold, and ``naive (batch, targets *
      steps)`` float32: what a simple rule would say, see ``season``.

    Args:
        root: a folder with a table for each split, ``SPLIT.csv``, ``.tsv``, ``.jsonl`` or ``.parquet``; or one
            table of everything, which is divided: by series, in each class its share; of a forecast by time,
            the last steps of each series being the test. *A step a line*: a column of names (``series``, ``id``)
            says whose step it is, and every column but time and label is a channel. *A series a line*: a
            channel is a column with a list, or a column for each step (``speed_0``, ``speed_1`` ...), whose empty
            ends are no steps. None is the built-in world: the shapes of waves, and which of two channels
            leads; their ``period`` as a target; or one long wave.
        series_column, time_column, label_column: without them columns with usual names are found. Times are
            numbers or dates, and put the steps in order; steps are taken to be evenly apart.
        target_columns: numbers to learn, one of a whole series; of a forecast the channels that are foretold,
            without them all.
        channels: columns of numbers, without them all others.
        horizon: so many steps are foretold from the ``window`` steps before them; 0 is none. A window of
            training ends before validation begins, and what is foretold in validation lies before the test:
            only what a forecast reads may reach back into an earlier split.
        season: beside a forecast's errors stand those of taking the value of so many steps before: 1 is the last
            value.
        missing: an empty value, or NaN, ends the run ("stop"), or is "fill"ed with that of the step before, or
            else the mean, and marked.
        max_steps: of a longer series the last so many are shown; None is all.
        val_fraction, test_fraction: the shares held out of one table.
        columns: our names of columns -> theirs, see the page on data.
        examples: training series of the built-in world, or steps of its long one.
    """

    task = "Series"
    decided = ("channels", "target_columns", "horizon", "window", "missing", "max_steps")

    def __init__(
        self,
        root: str | None = None,
        series_column: str | None = None,
        time_column: str | None = None,
        label_column: str | None = None,
        target_columns: list[str] | None = None,
        channels: list[str] | None = None,
        horizon: int = 0,
        window: int = 48,
        season: int = 1,
        missing: Literal["stop", "fill"] = "stop",
        max_steps: int | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        batch_size: int = 64,
        examples: int = 4000,
        seed: int = 0,
        num_workers: int = 0,
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        at_least(1, window=window, season=season, batch_size=batch_size, examples=examples)
        at_least(0, horizon=horizon, num_workers=num_workers, seed=seed)
        if max_steps is not None:
            at_least(1, max_steps=max_steps)
        if missing not in ("stop", "fill"):
            raise UserError(f"data.missing={missing!r} is unknown; choose one of: stop, fill.")
        if horizon and season > window:
            raise UserError(f"data.season={season} is longer than data.window={window}.")
        self.root = as_files(root, columns)
        self.given = (series_column, time_column, label_column)
        self.targets, self.channels = tuple(target_columns or ()), tuple(channels or ())
        self.horizon, self.window, self.season = horizon, window, season
        self.missing, self.max_steps = missing, window if horizon else max_steps
        self.shares = shares_of(val_fraction, test_fraction)
        self.split_seed, self.batch_size, self.examples = split_seed, batch_size, examples
        self.seed, self.num_workers = seed, num_workers
        self.problem_type = REGRESSION if horizon or target_columns else None
        self.preprocess: SeriesPreprocess | None = None
        self.labels: list[str] | None = None
        """The classes, once they are known."""
        self._spans: dict[str, list[Span]] = {}
        self._made: dict[str, Sequence[Example]] = {}

    # --- What there is ---

    @property
    def layout(self) -> Columns:
        """Which column of a table is what."""
        channels = self.channels if self.preprocess is None else self.preprocess.channels
        return Columns.learnt(self.given, self.targets, channels, self.horizon)

    def spans(self, split: str) -> list[Span]:
        """The series of "train", "val" or "test", and the steps of each that are this split's.

        Raises:
            UserError: what is wrong with a file, and where; a split that there is not.
        """
        if split not in self._spans:
            self._read(split)
            for span in self._spans[split]:
                if self.missing == "stop" and span.series.gap:
                    raise UserError(
                        f"{span.series.gap}: data.missing=fill takes the value before it, and marks it."
                    )
        if not self._spans[split]:
            raise nothing_held_out(split)
        return self._spans[split]

    def _read(self, split: str) -> None:
        if self.root is None:
            return self._generate(split)
        if not self.root.exists():
            raise UserError(f"data.root {self.root} does not exist.")
        file, parts = shared_file(self.root, NAMES, TABLES)
        if file is None or split not in parts:
            file = self._file(split)
            known = self.layout
            if split != "train" and not known.channels:
                known = dataclasses.replace(known, channels=self.spans("train")[0].series.channels)
            self._spans[split] = [Span.whole(one) for one in read_series(file, known)]
            return
        found = read_series(file, self.layout)
        shares = {name: self.shares[name] for name in parts if name != "train"}
        if self.horizon:
            self._spans |= divided(found, shares)
            return
        labels = [one.label or "" for one in found]
        chosen = divide(labels, [one.name for one in found], shares, self.split_seed)
        self._spans |= {n: [Span.whole(found[i]) for i in rows] for n, rows in chosen.items()}

    def _file(self, split: str) -> Path:
        assert self.root is not None
        found = own_file(self.root, split, TABLES) if self.root.is_dir() else None
        if found is None:
            names = " or ".join(f"{name}{TABLES[0]}" for name in SPLITS[split])
            what = "" if self.root.is_dir() else f", or is no table ({', '.join(TABLES)})"
            raise UserError(f"{self.root} has no {split} split, such as {names}{what}.")
        return found

    def _generate(self, split: str) -> None:
        if self.horizon:
            long = series_shapes.long_series(self.examples, self.seed)
            self._spans |= divided([long], self.shares)
            return
        if self.targets not in ((), ("period",)):
            raise UserError(
                f"data.target_columns={list(self.targets)}: the built-in series have [period] alone."
            )
        count = self.examples if split == "train" else max(100, self.examples // 10)
        found = [series_shapes.sample(i, self.seed, split) for i in range(count)]
        self._spans[split] = [Span.whole(one) for one in found]

    # --- What is learnt of it ---

    def prepared(self) -> SeriesPreprocess:
        """A checkpoint's, that of the first process, or made now of the training split."""
        if self.preprocess is None:
            spans = self.spans("train")
            targets = self.targets
            if self.horizon:
                targets = targets or spans[0].series.channels
                for name in targets:
                    if name not in spans[0].series.channels:
                        known = spans[0].series.channels
                        raise UserError(
                            f"data.target_columns names {name!r}, which is none of the channels: "
                            f"{some_of(known)}.{closest(name, known)}"
                        )
            fill = self.missing == "fill"
            self.preprocess = scale(spans, targets, self.horizon, fill, self.max_steps)
        return self.preprocess

    def classes(self) -> list[str]:
        """Their names, in the order of the labels: a checkpoint's, or those of the training split."""
        if self.labels is None:
            self.labels = sorted({str(span.series.label) for span in self.spans("train")})
            if len(self.labels) < 2:
                raise UserError(
                    f"{self.spans('train')[0].series.where}: all series have the label "
                    f"{self.labels[0]!r}; data.label_column may be another."
                )
        return self.labels

    def class_id(self, series: Series) -> int:
        """The number of a series' class.

        Raises:
            UserError: none of those of training.
        """
        known = self.classes()
        if series.label not in known:
            raise UserError(
                f"{series.where} has the class {series.label!r}, which is none of the {len(known)} of train: "
                f"{some_of(known, 10)}.{closest(str(series.label), known)}"
            )
        return known.index(str(series.label))

    def made(self, split: str) -> Sequence[Example]:
        """The examples of a split."""
        if split not in self._made:
            self._made[split] = self._make(split)
        return self._made[split]

    def _make(self, split: str) -> Sequence[Example]:
        preprocess, spans = self.prepared(), self.spans(split)
        if self.horizon:
            return windows(spans, preprocess, self.window, self.season, split)
        if self.problem_type is None:
            return [Example(s.series.name, s.series.values, self.class_id(s.series)) for s in spans]
        numbers = preprocess.learnt(np.array([span.series.numbers for span in spans]))
        rows = zip(spans, numbers.astype(np.float32), strict=True)
        return [Example(span.series.name, span.series.values, row) for span, row in rows]

    # --- What Lightning and tasks ask for ---

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        # Made now, so that a mistake in the files ends the run before it began.
        if stage in (None, "fit"):
            self.made("train")
        if stage in (None, "fit", "validate"):
            self.made("val")

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``num_classes``, those or the numbers that are given, and ``channels``."""
        preprocess = self.prepared()
        numbers = len(preprocess.targets) * max(1, self.horizon)
        classes = numbers if self.problem_type else len(self.classes())
        return {"num_classes": classes, "channels": preprocess.width}

    def assets(self) -> dict[str, Any]:
        said: dict[str, Any] = {"labels": list(self.classes())} if self.problem_type is None else {}
        if self.problem_type is not None:
            said["problem_type"] = self.problem_type
        return {
            **said,
            "preprocess": dataclasses.asdict(self.prepared()),
            "columns": list(self.given),
        }

    def use_assets(self, assets: dict[str, Any]) -> None:
        self.preprocess = SeriesPreprocess.from_dict(assets["preprocess"])
        self.problem_type = assets.get("problem_type")
        self.labels = list(assets["labels"]) if assets.get("labels") else None
        kept = self.preprocess
        self.channels, self.targets, self.horizon = kept.channels, kept.targets, kept.horizon
        self.missing = "fill" if kept.fill else "stop"
        self.max_steps = kept.max_steps
        if kept.horizon and kept.max_steps:
            self.window = kept.max_steps
        before = assets.get("columns") or [None] * 3
        self.given = tuple(own or old for own, old in zip(self.given, before, strict=True))  # type: ignore[assignment]
        self._made.clear()
        self._spans.clear()  # they may have been read otherwise

    def class_counts(self) -> list[int]:
        """The training examples of each class."""
        ids = [self.class_id(span.series) for span in self.spans("train")]
        return np.bincount(ids, minlength=len(self.classes())).tolist()

    def stored(self, split: str) -> Stored:
        found = self.made(split)

        def label(i: int) -> Any:
            return None if self.horizon else np.asarray(found[i].label).tobytes()

        return Stored(
            len(found), lambda i: np.ascontiguousarray(found[i].seen).tobytes(), label=label
        )

    def degenerate(self, split: str) -> list[str]:
        values = np.concatenate([span.values for span in self.spans(split)])
        flat = np.nanmax(values, 0) == np.nanmin(values, 0)
        names = [n for n, one in zip(self.prepared().channels, flat, strict=True) if one]
        return [f"the channel {name!r} is the same in all of {split}." for name in names]

    def loader(self, split: str) -> DataLoader[Any]:
        return self._loader(self.made(split), split == "train")

    def _loader(self, examples: Sequence[Example], train: bool = False) -> DataLoader[Any]:
        batches = ExampleBatches(
            len(examples), self.batch_size, train, self.order_seed, self.progress, drop_last=train
        )
        return batch_loader(SeriesBatches(examples, self.prepared()), batches, self.num_workers)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The series of "test", or all of one table without labels; batches have none then."""
        if self.root is None or self.horizon:
            return self.loader("test")
        whole, parts = shared_file(self.root, NAMES, TABLES)
        file = whole if "test" in parts else own_file(self.root, "test", TABLES)
        if file is None or self._labelled(file):
            return self.loader("test")
        found = read_series(file, self.layout, needed=False)
        return self._loader([Example(one.name, one.values, None) for one in found])

    def _labelled(self, file: Path) -> bool:
        """Whether a table has what is to be learnt."""
        row = next((row for _, row in table_rows(file)), {})
        wanted = self.targets or ([self.given[2]] if self.given[2] else LABEL_COLUMNS)
        return any(row.get(str(name), "").strip() for name in wanted)


class SeriesBatches(Dataset[dict[str, Any]]):
    """Whole batches of :class:`SeriesData`."""

    def __init__(self, examples: Sequence[Example], preprocess: SeriesPreprocess) -> None:
        self.examples, self.preprocess = examples, preprocess

    def __len__(self) -> int:
        return len(self.examples)

    def __getitems__(self, picks: list[Pick]) -> dict[str, Any]:
        found = [self.examples[pick.index] for pick in picks]
        values, step_mask = series_batch([self.preprocess(one.seen, one.name) for one in found])
        batch: dict[str, Any] = {"values": values, "step_mask": step_mask}
        if found[0].label is not None:
            batch["labels"] = torch.from_numpy(np.array([one.label for one in found]))
        batch["series"] = [one.name for one in found]
        if found[0].naive is not None:
            batch["naive"] = torch.from_numpy(np.array([one.naive for one in found]))
            batch["step"] = [one.step for one in found]
        return batch
