"""What a training step of a config holds and costs, found without the memory that it would take.

The step runs on tensors that have a shape and no numbers (PyTorch's fake tensors), under PyTorch's own
account of what lives when (``MemTracker``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import Namespace
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from family.checks import first_line
from family.core.transformer import Transformer
from family.models.arguments import memory
from tasks.cli.building import build_task
from tasks.compare.cases import rows_of
from tasks.compare.flops import counted_flops
from tasks.compare.profile import held
from tasks.errors import UserError
from tasks.training.optim import build_optimizer

CHECKPOINTING = "activation_checkpointing"


@dataclass(frozen=True)
class Footprint:
    """Of one step on one batch by one process that holds the whole model; in bytes, where nothing else is
    said."""

    parameters: int
    """How many."""
    trained: int
    """How many of them learn."""
    weights: int
    gradients: int
    """Of all weights that learn."""
    held_gradients: int
    """Of those that have one at the moment when most is held."""
    optimizer: int
    activations: int
    """All else at the moment when most is held: what the backward pass needs, and what is being computed."""
    peak: int
    block: int
    """The weights of the largest block of its stacks."""
    rest: int
    """The weights outside of all blocks."""
    flops: float
    rows: int
    """Examples of the batch."""
    tokens: int
    """Tokens that it reads; 0 where it reads none."""


def footprint(
    path: str, options: Sequence[str] = (), checkpointing: bool | None = None
) -> Footprint | None:
    """The footprint of a step on the first batch of a config.

    Args:
        path, options: a YAML file, and what is laid over it.
        checkpointing: activations of all stacks are computed again in the backward pass, or kept; None is
            what the config says.

    Returns:
        None where there is no stack of which ``checkpointing`` could be said.

    Raises:
        UserError: a step that depends on the numbers in its batch, of a model too large for this machine.
    """

    said: list[str] = []

    def change(parsed: Namespace) -> None:
        said[:] = [key for key in list(parsed.keys()) if key.endswith(f".{CHECKPOINTING}")]
        for key in said if checkpointing is not None else ():
            parsed[key] = checkpointing

    task, batch = task_and_batch(path, options, change)
    if checkpointing is not None and not said:
        return None
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with mode:
            task.configure_model()
            fake = {
                n: mode.from_tensor(v) if isinstance(v, Tensor) else v for n, v in batch.items()
            }
            return measured(task, fake)
    except UserError:
        raise
    except Exception as error:
        # It asks for the numbers of its batch (how many tokens are masked, which box is whose).
        need = 4 * sum(p.nbytes for p in task.learner.parameters()) if task.model is not None else 0
        if need > memory():
            raise UserError(
                f"a step of {type(task).__name__} depends on the numbers in its batch "
                f"({first_line(error)}), and with real ones the model takes {need / 2**30:.1f} GiB here: "
                "plan for a shallower one."
            ) from error
    task, batch = task_and_batch(path, options, change)
    task.configure_model()
    return measured(task, batch)


def task_and_batch(path: str, options: Sequence[str], change: Any) -> tuple[Any, dict[str, Any]]:
    task, data = build_task(path, options, change)
    return task, next(iter(data.loader("train")))


def measured(task: Any, batch: dict[str, Any]) -> Footprint:
    """The same of a task with its model, on a batch; fake tensors in their mode."""
    context = task.trainer.precision_plugin.train_step_context
    learner = task.learner.train()
    optimizer = build_optimizer(
        task.optimizer_name, learner, task.lr, task.weight_decay, task.betas, True, task.layer_decay
    )

    def backward() -> None:
        with context():
            loss = task.loss(batch)["loss"]
        loss.backward()

    flops = counted_flops(backward)
    optimizer.step()  # from now on it holds its state
    optimizer.zero_grad()
    account = MemTracker()
    account.track_external(
        learner, optimizer, *[v for v in batch.values() if isinstance(v, Tensor)]
    )
    with account:
        backward()
        optimizer.step()
        optimizer.zero_grad()
    (found,) = account.get_tracker_snapshot("peak").values()
    at_peak = {getattr(kind, "value", kind): count for kind, count in found.items()}
    weights = at_peak["Parameter"] + at_peak["Buffer"]
    stays = held(learner, optimizer)
    stacks = [module for module in learner.modules() if isinstance(module, Transformer)]
    blocks = [
        sum(p.nbytes for p in block.parameters()) for stack in stacks for block in stack.blocks
    ]
    trained = [p for p in learner.parameters() if p.requires_grad]
    return Footprint(
        parameters=sum(p.numel() for p in learner.parameters()),
        trained=sum(p.numel() for p in trained),
        weights=weights,
        gradients=sum(p.nbytes for p in trained),
        held_gradients=at_peak["Gradient"],
        optimizer=stays - weights,
        activations=at_peak["Total"] - stays - at_peak["Gradient"],
        peak=at_peak["Total"],
        block=max(blocks, default=0),
        rest=sum(p.nbytes for p in learner.parameters()) - sum(blocks),
        flops=float(flops),
        rows=rows_of(batch),
        tokens=count_of_text(batch),
    )


def count_of_text(batch: dict[str, Any]) -> int:
    """Places for tokens of a batch, padding among them."""
    return sum(batch[n].numel() for n in ("input_ids", "source", "target") if n in batch)
