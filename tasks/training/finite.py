"""A run whose numbers are no longer finite stops, before they reach the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.errors import UserError


def check_finite(task: Any, **values: Tensor | float) -> None:
    """Refuse to go on with numbers of a training step that are not finite; to be called before the optimizer
    makes its step, so that the last checkpoint is a good one.

    Args:
        task: whose ``global_step`` it is.
        values: by their names, tensors of any shape.

    Raises:
        UserError: one is infinite or not a number; says which, and at which step.
    """
    for name, value in values.items():
        found = torch.as_tensor(value)
        if not bool(found.isfinite().all()):
            wrong = found[~found.isfinite()].flatten()[0].item()
            raise stopped(task, f"the {name.replace('_', ' ')} is {wrong}")


def check_gradients(task: Any) -> None:
    """The same of the gradients of all that learns; in float16 the optimizer's scale sees to it.

    Raises:
        UserError: see :func:`check_finite`.
    """
    if str(task.trainer.precision).startswith("16"):
        return
    gradients = [p.grad for p in task.parameters() if p.grad is not None]
    if gradients and not bool(torch.nn.utils.get_total_norm(gradients).isfinite()):
        raise stopped(task, "the gradient is not finite")


def stopped(task: Any, what: str) -> UserError:
    return UserError(
        f"{what} at step {task.global_step + 1}: the run stops there, and its last checkpoint is of before. A "
        "smaller model.lr may help."
    )
