"""Samplers: along a field of velocities from noise (time 0) to data (time 1)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from family.generation.guidance import check_guidance, overstated

Field = Callable[[Tensor, Tensor], Tensor]
"""``(batch, ...)`` and times ``(batch,)`` -> velocities ``(batch, ...)``."""


def euler(field: Field, x: Tensor, time: Tensor, step: float) -> Tensor:
    """One step along the velocity here; the error of a whole path shrinks as the step does."""
    return x + step * field(x, time)


def heun(field: Field, x: Tensor, time: Tensor, step: float) -> Tensor:
    """One step along the mean of the velocities here and where Euler's step ends: twice the cost, and the
    error of a whole path shrinks as the square of the step (Karras et al. 2022, algorithm 1)."""
    here = field(x, time)
    there = field(x + step * here, time + step)
    return x + step * (here + there) / 2


SAMPLERS: dict[str, Callable[[Field, Tensor, Tensor, float], Tensor]] = {
    "euler": euler,
    "heun": heun,
}


def follow(
    field: Field,
    noise: Tensor,
    steps: int = 50,
    sampler: str = "euler",
    moved: Callable[[Tensor], Tensor] | None = None,
    last: str | None = None,
) -> Tensor:
    """Where noise ends that follows a field from time 0 to 1.

    Args:
        field: is told each row's time; all rows of a call have the same.
        noise: ``(batch, ...)``, of a dtype whose rounding steps may add up: float32 at least.
        sampler: "euler", or "heun" at two velocities a step.
        moved: where the times of equal steps are moved to, such as
            :func:`~family.losses.flow.shifted`; None leaves the steps equal.
        last: the sampler of the last step, "euler" of a field that has no value at time 1 (as Karras et al.
            2022, algorithm 1); None is as all.

    Raises:
        ValueError: an unknown sampler, or no step at all.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler={sampler!r} is unknown; choose one of: {', '.join(SAMPLERS)}.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number of at least 1, not {steps!r}.")
    x = noise
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    for here, there in pairwise((times if moved is None else moved(times)).tolist()):
        time = torch.full((len(x),), here, device=x.device)
        way = last if last is not None and there == 1 else sampler
        x = SAMPLERS[way](field, x, time, there - here)
    return x


def guided(field: Field, guidance: float) -> Field:
    """Classifier-free guidance, see :func:`~family.generation.guidance.overstated`.

    Args:
        field: of twice as many rows: first those with what guides, then the same without it.
        guidance: 1 leaves the velocity as it is, 0 is that of nothing told, more overstates.

    Returns:
        the field of half as many rows; each velocity is one call of ``field``.

    Raises:
        ValueError: ``guidance`` below 0, or no number.
    """
    check_guidance(guidance)

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        return overstated(field(torch.cat([x, x]), torch.cat([time, time])), guidance)

    return velocity
