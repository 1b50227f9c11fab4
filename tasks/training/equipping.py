"""What the runs of all tasks have, by whatever trainer."""

from __future__ import annotations

from typing import Any

from tasks.runs.ending import leaving
from tasks.runs.writing import written_whole
from tasks.training.alarms import alarmed
from tasks.training.repeating import repeating
from tasks.training.sharding import gathering
from tasks.training.validating import validating


def equip(trainer: Any) -> None:
    """Let a trainer validate apart from training, watch its numbers, repeat its steps after a cut, leave
    between two batches when it is told to, write whole checkpoints, and gather weights that are shared out;
    once."""
    validating(trainer)
    alarmed(trainer)
    repeating(trainer)
    leaving(trainer)
    written_whole(trainer)
    gathering(trainer)
