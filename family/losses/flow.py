"""Flow matching: what leads noise to data along straight lines (Lipman et al. 2023; Liu et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from family.losses.log_probs import full

TIMES = ("uniform", "logit_normal")


def draw_times(
    count: int,
    kind: str = "uniform",
    shift: float = 1.0,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Times in 0..1, ``(count,)`` float32: 0 is noise, 1 is data.

    Args:
        kind: "uniform", or "logit_normal", the sigmoid of a standard normal number, which comes to the
            middle most often (Esser et al. 2024, section 3.1).
        shift: see :func:`shifted`.

    Raises:
        ValueError: an unknown ``kind``; ``shift`` not above 0.
    """
    if kind not in TIMES:
        raise ValueError(f"times={kind!r} is unknown; choose one of: {', '.join(TIMES)}.")
    if kind == "uniform":
        time = torch.rand(count, generator=generator, device=device)
    else:
        time = torch.randn(count, generator=generator, device=device).sigmoid()
    return shifted(time, shift)


def shifted(time: Tensor, shift: float) -> Tensor:
    """Times moved towards noise (Esser et al. 2024, section 5.3.2): in data of many dimensions that hang together
    much noise hides little, and what a picture shows is decided early.

    Args:
        time: any shape, in 0..1: 0 is noise.
        shift: the odds ``time / (1 - time)`` are divided by it; 1 leaves them.

    Raises:
        ValueError: ``shift`` not above 0.
    """
    if not shift > 0:
        raise ValueError(f"shift must be above 0, not {shift!r}.")
    return time / (time + shift * (1 - time))


def straight_path(noise: Tensor, data: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """Where the line from noise to data is at a time, and the velocity along it.

    Args:
        noise, data: ``(batch, ...)``.
        time: ``(batch,)``.

    Returns:
        ``(1 - time) noise + time data`` and ``data - noise``, each ``(batch, ...)``.
    """
    at = time.view(-1, *[1] * (data.dim() - 1)).to(data.dtype)
    return (1 - at) * noise + at * data, data - noise


def flow_matching_loss(found: Tensor, velocity: Tensor) -> Tensor:
    """The mean square of what a model's velocity is off, in float32 at least.

    Args:
        found, velocity: ``(batch, ...)``.
    """
    return (full(found) - full(velocity)).square().mean()
