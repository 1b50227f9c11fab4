"""At which steps somebody sees the numbers of training: a log costs a fifth of a small step."""

from __future__ import annotations

from typing import Any


def watched(trainer: Any) -> bool:
    """Whether a progress bar, or a callback that monitors ``train/...``, sees those of every step."""
    monitors = (str(getattr(one, "monitor", "")) for one in trainer.callbacks)
    return trainer.progress_bar_callback is not None or any(
        name.startswith("train/") for name in monitors
    )


def written(trainer: Any, step: int) -> bool:
    """Whether loggers write those of a step, counted from 1, or it ends an epoch or the run."""
    interval = trainer.log_every_n_steps
    at_interval = interval > 0 and step % interval == 0
    return at_interval or trainer.is_last_batch or step == trainer.max_steps
