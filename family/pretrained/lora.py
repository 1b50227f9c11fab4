"""LoRA: train a low-rank correction of a linear layer in its place (Hu et al. 2021)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TARGETS = ("*.qkv", "*.out")
"""What is adapted by default: self-attention, and the output of every attention."""


class LoRALinear(nn.Module):
    """``base(x) + alpha / rank * B(A(dropout(x)))``, the base frozen (section 4.1).

    A is drawn as a linear layer's weight is, B begins at zero: at first nothing changes. ``weight``
    and ``bias`` are those of the layer that this one acts as, for whoever multiplies by them itself
    (a part of a fused projection); dropout does not reach there.

    Args:
        base: the layer; A and B are of its dtype and on its device.
        rank: columns of A and B's product that are independent.
        alpha: strength of the correction.
        dropout: of the input of A, in training.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        like: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.lora_a = nn.Linear(base.in_features, rank, bias=False, **like)
        self.lora_b = nn.Linear(rank, base.out_features, bias=False, **like)
        nn.init.kaiming_uniform_(self.lora_a.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_b.weight)
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        # Beside the base, which so stays as it is to the bit; a file never holds it.
        self.merged: Tensor | None
        self.register_buffer("merged", None, persistent=False)
        self.train(base.training)

    @property
    def weight(self) -> Tensor:
        """``(out, in)``, the correction included."""
        if self.merged is not None:
            return self.merged
        return self.base.weight + self.scale * (self.lora_b.weight @ self.lora_a.weight)

    @property
    def bias(self) -> Tensor | None:
        """``(out)``, the base's."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in) -> (..., out)``."""
        if self.merged is not None:
            return F.linear(x, self.merged, self.base.bias)
        return self.base(x) + self.scale * self.lora_b(self.lora_a(self.dropout(x)))


def add_lora(
    model: nn.Module,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Iterable[str] = TARGETS,
) -> list[str]:
    """Put a :class:`LoRALinear` around linear layers of a model, and freeze all else.

    Args:
        alpha: None is ``rank``, a factor of 1.
        targets: patterns of the names of layers, as of files: ``*.qkv``, ``encoder.*``.

    Returns:
        the names of the layers.

    Raises:
        ValueError: a value out of range; a pattern that matches no linear layer, with the nearest
            names; a layer that has one already, or shares its weight with another module.
    """
    alpha = float(rank) if alpha is None else alpha
    if rank < 1:
        raise ValueError(f"rank={rank}: LoRA needs a rank of at least 1.")
    if not alpha > 0:
        raise ValueError(f"alpha={alpha} must be above 0.")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} must be at least 0 and below 1.")
    if any(True for _ in adapted(model)):
        raise ValueError("the model has LoRA layers already: merge_lora(model, remove=True) first.")
    layers = {
        name: module
        for name, module in model.named_modules()
        # One with a forward of its own computes something else from its weight.
        if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
    }
    chosen = matching(targets, layers, "a linear layer")
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for name in chosen:
        shared = [o for o in owners[id(layers[name].weight)] if o != f"{name}.weight"]
        if shared:
            raise ValueError(
                f"{name} shares its weight with {shared[0]}, which LoRA would change as well: "
                "leave it out of targets."
            )
    model.requires_grad_(False)
    for name in chosen:
        replace(model, name, LoRALinear(layers[name], rank, alpha, dropout))
    return chosen


@torch.no_grad()
def merge_lora(model: nn.Module, remove: bool = False) -> None:
    """Compute each adapted layer by one product again, of the sum of its weights.

    A and B no longer train then; :func:`unmerge_lora` goes back, the base's weight unchanged.

    Args:
        remove: for good: the plain layers come back under their own names, and stay frozen.
    """
    for name, layer in list(adapted(model)):
        weight = layer.weight.detach()
        if remove:
            layer.base.weight.copy_(weight)
            replace(model, name, layer.base)
        else:
            layer.merged = weight


def unmerge_lora(model: nn.Module) -> None:
    """Undo :func:`merge_lora`, to the bit."""
    for _, layer in adapted(model):
        layer.merged = None


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapters alone: name -> A's or B's weight, for a file of a few megabytes."""
    return {
        f"{name}.{part}.weight": getattr(layer, part).weight.detach()
        for name, layer in adapted(model)
        for part in ("lora_a", "lora_b")
    }


@torch.no_grad()
def load_lora(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Put the adapters of :func:`lora_state` into a model with the same layers adapted, unmerged.

    Raises:
        ValueError: one that is missing, has no place, or has another shape.
    """
    ours = lora_state(model)
    for name in sorted({*ours, *state}):
        if name not in state:
            raise ValueError(f"the adapters have no {name}, which the model has.")
        if name not in ours:
            raise ValueError(f"the model has no place for the adapter {name}.")
        if ours[name].shape != state[name].shape:
            raise ValueError(
                f"{name} has the shape {tuple(state[name].shape)}, but the model's rank takes "
                f"{tuple(ours[name].shape)}."
            )
    unmerge_lora(model)
    for name, weight in ours.items():
        weight.copy_(state[name])


def adapted(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The LoRA layers of a model, by the names of what they stand for."""
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield name, module


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module at the place of that name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def matching(patterns: Iterable[str], names: Iterable[str], kind: str) -> list[str]:
    """The names that any pattern matches, in their order.

    Args:
        kind: what the names are of, for the message.

    Raises:
        ValueError: a pattern that matches none, with the nearest names.
    """
    names, patterns = list(names), list(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            ends = dict.fromkeys(f"*.{name.rpartition('.')[2]}" for name in names)
            near = difflib.get_close_matches(pattern, [*ends, *names], n=3, cutoff=0.5)
            hint = f" The nearest are: {', '.join(near)}." if near else ""
            raise ValueError(f"{pattern!r} matches no name of {kind}.{hint}")
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
