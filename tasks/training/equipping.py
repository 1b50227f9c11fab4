"""What the runs of all tasks have, by whatever trainer."""

from __future__ import annotations

from typing import Any

from tasks.errors import UserError
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


def share_once(trainer: Any, data: Any) -> None:
    """Refuse a trainer that shares out among processes what our data share out themselves."""
    shares = getattr(trainer, "_accelerator_connector", None)
    twice = hasattr(data, "assets") and getattr(shares, "use_distributed_sampler", False)
    if twice and trainer.world_size > 1:
        raise UserError(
            f"{type(data).__name__} shares its batches out among processes itself: give the "
            "Trainer use_distributed_sampler=False."
        )
