"""How checkpoints and logs are written: aside, and renamed once they are whole."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.loggers import CSVLogger

from family.files import whole
from family.pretrained.parts import SHARDS, fill, in_parts
from tasks.errors import user_errors
from tasks.runs.parts import clear


class WholeCheckpoints(TorchCheckpointIO):
    """Lightning's own would write to the system's folder for temporary files, from which another disk gets them
    by copying, and holds the whole of it in memory. One in parts is read as a whole, and replaced or removed with
    its folder."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        if storage_options is not None or "://" in str(path):
            return super().save_checkpoint(checkpoint, path, storage_options)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as new, new.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())  # else the name may be on the disk before what it names
        clear(Path(os.path.realpath(path)), but=checkpoint.get(SHARDS))

    def load_checkpoint(self, path: Any, *options: Any, **more: Any) -> dict[str, Any]:
        content = super().load_checkpoint(path, *options, **more)
        if in_parts(content):
            with user_errors():
                fill(Path(path), content)
        return content

    def remove_checkpoint(self, path: Any) -> None:
        link = os.path.islink(path)
        super().remove_checkpoint(path)
        if not link and "://" not in str(path):
            clear(Path(path))


def written_whole(trainer: Any) -> None:
    """Let checkpoints of a trainer be written so, unless it was given another way."""
    strategy = trainer.strategy
    if type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = WholeCheckpoints()


class WholeCSVLogger(CSVLogger):
    """Lightning's own opens what it has logged to write it again wherever a column is new."""

    @property
    def experiment(self) -> Any:
        writer: Any = super().experiment
        if self._experiment is not None:  # of the first process
            writer._rewrite_with_new_header = partial(rewrite, Path(writer.metrics_file_path))
        return writer


def rewrite(file: Path, columns: Sequence[str]) -> None:
    """Give a table more columns, whole or not at all."""
    with file.open(encoding="utf-8", newline="") as old:
        rows = list(csv.DictReader(old))
    with whole(file) as new, new.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, columns)
        writer.writeheader()
        writer.writerows(rows)
