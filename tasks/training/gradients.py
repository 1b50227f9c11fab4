"""Gradients that are not finite, of a loss that is."""

from __future__ import annotations

from typing import Any

from torch.nn.utils import get_total_norm

from tasks.training.finite import check_finite


def check_gradients(task: Any) -> None:
    """Refuse to make a step by them; to be called on each step, before the optimizer. In float16 the scale of
    the gradients sees to it.

    Args:
        task: whose parameters learn.

    Raises:
        NotFiniteError: see :func:`~tasks.training.finite.check_finite`.
    """
    gradients = [p.grad for p in task.parameters() if p.grad is not None]
    if gradients and not str(task.trainer.precision).startswith("16"):
        check_finite({"norm of the gradient": get_total_norm(gradients)}, task.global_step + 1)
