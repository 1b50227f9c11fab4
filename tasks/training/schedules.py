"""Learning rates over a training, as shares of their peaks."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tasks.errors import UserError, closest

SCHEDULES = ("constant", "inverse_sqrt", "cosine", "linear", "wsd")


def schedule_factor(
    name: str,
    step: int,
    warmup_steps: int,
    total_steps: int,
    min_lr_ratio: float = 0.0,
    decay_fraction: float = 0.2,
) -> float:
    """The learning rate at ``step`` (from 0) as a share of its peak.

    "inverse_sqrt" is Vaswani et al. 2017, section 5.3; "wsd" is constant, then linear to
    ``min_lr_ratio`` in the last ``decay_fraction`` of the steps.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if name == "inverse_sqrt":
        return math.sqrt(max(1, warmup_steps) / max(1, step + 1))
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if name == "cosine":
        share = 0.5 * (1 + math.cos(math.pi * done))
    elif name == "linear":
        share = 1 - done
    elif name == "wsd":
        share = min(1.0, (1 - done) / decay_fraction)
    else:
        share = 1.0
    return min_lr_ratio + (1 - min_lr_ratio) * share


def build_schedule(
    name: str,
    optimizer: Optimizer,
    warmup_steps: int,
    total_steps: float,
    min_lr_ratio: float = 0.0,
    decay_fraction: float = 0.2,
) -> LambdaLR:
    """:func:`schedule_factor` on every group of an optimizer.

    Raises:
        UserError: an unknown name, with the nearest known one; a schedule that ends, of a training without end.
    """
    if total_steps == math.inf:
        if name not in ("constant", "inverse_sqrt"):
            raise UserError(
                f"schedule={name!r} ends with the training: it needs "
                "trainer.max_steps or trainer.max_epochs."
            )
        total_steps = 0  # which these two do not ask for
    total = int(total_steps)
    if name not in SCHEDULES:
        choices = ", ".join(SCHEDULES)
        raise UserError(
            f"schedule={name!r} is unknown; choose one of {choices}.{closest(name, SCHEDULES)}"
        )

    def factor(step: int) -> float:
        return schedule_factor(name, step, warmup_steps, total, min_lr_ratio, decay_fraction)

    return Schedule(optimizer, factor)


class Schedule(LambdaLR):
    """A share of each group's rate; a state that it loads says how far it is, not of which rate."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):  # divided as the run that goes on was
            self.base_lrs = [group["initial_lr"] for group in groups]
            self.lr_lambdas = self.lr_lambdas[:1] * len(groups)
        super().load_state_dict({**state_dict, "base_lrs": self.base_lrs})
        self._last_lr = [
            base * factor(self.last_epoch)
            for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate
