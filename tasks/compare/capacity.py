"""What one of many processes holds, sends and waits for, by how a model is shared out over them."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.compare.footprint import Footprint

GIB = 2**30


@dataclass(frozen=True)
class Share:
    """Of one process and one step of the optimizer; in bytes and seconds."""

    strategy: str
    checkpointing: bool
    weights: float
    gradients: float
    optimizer: float
    activations: float
    sent: float
    """What it sends, and as much it receives."""
    seconds: float | None
    """Of computing; None where the rate is not known."""
    sending: float | None
    """Seconds of sending, most of which passes while others compute."""

    @property
    def peak(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations


def shares(
    found: Footprint,
    processes: int,
    checkpointing: bool,
    rate: float | None = None,
    bandwidth: float | None = None,
) -> list[Share]:
    """The share of a process under each strategy.

    DDP holds all, and its gradients twice: once in the buckets that are sent; a ring's all-reduce sends
    each number twice. FSDP2 holds its part, and whole the block that computes and the one that comes next,
    and from forward to backward what is outside of the blocks, with its gradient; it sends the weights
    for the forward pass, those of the blocks again for the backward pass, and the gradients once (Rajbhandari
    et al. 2020, section 7).

    Args:
        rate: FLOPs a second of a process; bandwidth: bytes a second that it sends.
    """
    n, others = processes, (processes - 1) / processes
    seconds = None if rate is None else found.flops / rate

    def share(name: str, weights: float, gradients: float, optimizer: float, sent: float) -> Share:
        sending = None if bandwidth is None else sent / bandwidth
        parts = weights, gradients, optimizer, found.activations
        return Share(name, checkpointing, *parts, sent, seconds, sending)

    if n == 1:
        return [share("one process", found.weights, found.held_gradients, found.optimizer, 0.0)]
    twice = 2 * found.gradients
    blocks = found.weights - found.rest
    gathered = 2 * found.block + found.rest
    return [
        share("ddp", found.weights, twice, found.optimizer, twice * others),
        share(
            "fsdp2",
            found.weights / n + gathered,
            found.gradients / n + found.block + found.rest,
            found.optimizer / n,
            (found.weights + blocks + found.gradients) * others,
        ),
    ]
