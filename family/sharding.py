"""A model shared out over processes (FSDP2): each holds a part of every weight, and has the whole of a block
only while that computes. A function beside the model, as torchtitan has it; the model knows nothing of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from family.core.block import Block
from family.core.transformer import Transformer


def shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Share out the weights of ``model`` over the processes of ``mesh``, in place: the blocks of its stacks
    one by one, then all that is left, which stays whole from forward to backward. Every process has all of a
    weight that is a single number, with the mean of its gradients. Return the model.
    """
    single = {parameter for parameter in model.parameters() if parameter.dim() == 0}
    for parameter in filter(lambda one: one.requires_grad, single):
        parameter.register_hook(functools.partial(mean_over, mesh))
    for stack in [m for m in model.modules() if isinstance(m, Transformer)]:
        for block in stack.blocks:
            fully_shard(block, mesh=mesh, ignored_params=single)
    names = entrances(model)
    fully_shard(model, mesh=mesh, ignored_params=single)
    model.entered = Entered(model, names)  # type: ignore[assignment]
    return model


def mean_over(mesh: DeviceMesh, gradient: Tensor) -> Tensor:
    """Of a gradient that all processes have."""
    summed = gradient.clone()
    dist.all_reduce(summed, group=mesh.get_group())
    return summed / mesh.size()


def held(model: nn.Module) -> list[Tensor]:
    """What this process holds of each weight and buffer, in the same memory; what it has gathered of others
    it lets go."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    tensors = (tensor.detach() for tensor in (*model.parameters(), *model.buffers()))
    return [x.to_local() if isinstance(x, DTensor) else x for x in tensors]


class Entered:
    """Where a model that is shared out is being computed: its weights are gathered at the outermost call,
    be it of ``forward`` or of another method, and not again within it.

    PyTorch's own hooks for methods would let go of the weights as the second of two nested calls ends.
    """

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        self.depth = 0
        for name in names:
            plain = getattr(model, name)
            register_fsdp_forward_method(model, name)
            setattr(model, name, self._entering(plain, getattr(model, name)))
        model.register_forward_pre_hook(self._enter)
        model.register_forward_hook(self._leave, always_call=True)

    def _enter(self, *_: Any) -> None:
        self.depth += 1

    def _leave(self, *_: Any) -> None:
        self.depth -= 1

    def _entering(self, plain: Callable[..., Any], gathers: Callable[..., Any]) -> Any:
        @functools.wraps(plain)
        def method(*args: Any, **options: Any) -> Any:
            if self.depth:
                return plain(*args, **options)
            self._enter()
            try:
                return gathers(*args, **options)
            finally:
                self._leave()

        return method


def entrances(model: nn.Module) -> list[str]:
    """The methods beside ``forward`` by which a model may be entered, at whose begin its weights must be
    there: all public ones of its own, but generators, which enter it by others."""
    own = inspect.getmembers(type(model), inspect.isfunction)
    return [
        name
        for name, value in own
        if not (name.startswith("_") or name == "forward" or hasattr(nn.Module, name))
        and not inspect.isgeneratorfunction(value)
    ]


def gather(model: nn.Module) -> None:
    """Let every process hold all weights, until :func:`share_again`: what follows (decoding, a validation)
    may then differ among them, as nobody waits for another."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        if isinstance(entered := getattr(module, "entered", None), Entered):
            entered.depth += 1


@contextmanager
def whole(model: nn.Module) -> Iterator[nn.Module]:
    """Within it every process holds all weights, see :func:`gather`; a model that is not shared out does
    anyway."""
    gather(model)
    try:
        yield model
    finally:
        share_again(model)


def is_shared_out(model: nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules())


def share_again(model: nn.Module) -> None:
    """Undo :func:`gather`; all processes must have come here."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(isinstance(module, Block), recurse=False)
            module.reshard()
        if isinstance(entered := getattr(module, "entered", None), Entered):
            entered.depth -= 1
