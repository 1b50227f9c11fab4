"""The runs of a folder, read from what they leave: config, state, metrics and logs; no checkpoint is opened."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tasks.errors import UserError
from tasks.runs.state import state_of

CONFIG = "config.yaml"
LEFT = ("state.json", "logs", "checkpoints", "metrics-*.json", "predictions*")
"""Of these a run has one beside its config."""
Curve = list[tuple[int, float]]
"""Steps and values."""


@dataclass(frozen=True)
class RunFolder:
    """A run, by its folder.

    Args:
        config: as it was resolved.
        state: of :func:`~tasks.runs.state.state_of`.
        metrics: those that were found last, of ``stage``; empty where it did not get so far.
        curves: of each metric that was logged.
    """

    folder: Path
    config: dict[str, Any]
    state: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    stage: str = ""
    step: int = 0
    curves: dict[str, Curve] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """The name of its class."""
        model = self.config.get("model")
        path = model.get("class_path", "") if isinstance(model, dict) else ""
        return str(path).rpartition(".")[2]

    @property
    def changed(self) -> float:
        """When it last wrote, in seconds since 1970."""
        files = [self.folder, *self.folder.glob("*"), *self.folder.glob("logs/*")]
        return max(file.stat().st_mtime for file in files if file.exists())

    def best(self) -> tuple[str, float] | None:
        """The metric that chose the checkpoint, where it was best; of a test the last value of its split."""
        monitor = self.state.get("monitor")
        pair = isinstance(monitor, list | tuple) and len(monitor) == 2
        name, mode = monitor if monitor and pair else self._monitor()
        values = [value for _, value in self.curves.get(name, []) if math.isfinite(value)]
        if self.stage in ("test", "validate"):
            name = name.replace("val/", f"{'val' if self.stage == 'validate' else 'test'}/")
            values = []
        if not values and math.isfinite(self.metrics.get(name, math.nan)):
            values = [self.metrics[name]]
        return (name, max(values) if mode == "max" else min(values)) if values else None

    def _monitor(self) -> tuple[str, str]:
        """Of a run of before, which does not say: what its task says now."""
        from tasks.runs.checkpoints import find_class  # imports torch

        try:
            return getattr(find_class(self.config["model"]["class_path"]), "monitor", None) or (
                "",
                "",
            )
        except (UserError, KeyError, TypeError):
            return "", ""


def runs_in(place: Path) -> list[RunFolder]:
    """The runs in a folder and those below, which may be one itself, the newest first.

    Raises:
        UserError: no folder.
    """
    if not place.is_dir():
        raise UserError(f"{place} is no folder of runs: give one, such as runs.")
    found = []
    for folder in folders_in(place):
        try:
            found.append(read_run(folder))
        except UserError as error:
            if folder == place:
                raise
            print(f"left out: {error}", file=sys.stderr)
    return sorted(found, key=lambda run: run.changed, reverse=True)


def folders_in(place: Path) -> Iterator[Path]:
    """Those that hold a run; what a run holds may be runs too, as those of a comparison."""
    for folder, inside, files in os.walk(place):
        inside[:] = [name for name in inside if name not in ("checkpoints", "samples", "logs")]
        here = Path(folder)
        if CONFIG in files and any(any(here.glob(name)) for name in LEFT):
            yield here


def read_run(folder: Path) -> RunFolder:
    """What a run has left so far.

    Raises:
        UserError: it is none.
    """
    try:
        config = yaml.load(
            (folder / CONFIG).read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except (OSError, ValueError, yaml.YAMLError):
        config = None
    if not isinstance(config, dict):
        raise UserError(f"{folder} is no run: it has no {CONFIG} that can be read.")
    stage, found = metrics_of(folder)
    curves = curves_of(folder / "logs/metrics.csv")
    last = max((points[-1][0] + 1 for points in curves.values() if points), default=0)
    metrics = found.get("metrics") or {name: points[-1][1] for name, points in curves.items()}
    return RunFolder(
        folder, config, state_of(folder), metrics, stage, int(found.get("step") or last), curves
    )


def metrics_of(folder: Path) -> tuple[str, dict[str, Any]]:
    """The stage of the metrics that a run ended with, and their file; empty where there is none."""
    for stage in ("fit", "test", "validate"):
        try:
            found = json.loads((folder / f"metrics-{stage}.json").read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return stage, found
    return "", {}


def curves_of(file: Path) -> dict[str, Curve]:
    """What was logged of each metric, by steps; a line that is being written is left out."""
    curves: dict[str, Curve] = {}
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            for row in csv.DictReader(opened):
                for name, value in row.items():
                    if name in ("step", "epoch") or not isinstance(value, str) or not value:
                        continue
                    try:
                        point = (int(row["step"]), float(value))
                    except (ValueError, KeyError):
                        continue
                    curves.setdefault(name, []).append(point)
    except OSError:
        pass
    return curves


def flat_options(config: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """The options of a config by their paths, without those that are null."""
    for name, value in config.items():
        path = f"{place}.{name}".removeprefix(".").replace(".init_args", "")
        if isinstance(value, dict) and value:
            yield from flat_options(value, path)
        elif value is not None:
            yield path, value
