"""LoRA: train a low-rank correction of a linear layer in its place (Hu et al. 2021)."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.checks import is_quantised
from family.core.attention import Attention
from family.core.feedforward import FeedForward

TARGETS = ("*.qkv", "*.out")
"""What is adapted by default: self-attention, and the output of every attention."""


class Adapter(NamedTuple):
    """A correction, of a layer or of some of its rows: ``alpha / rank * B(A(x))``.

    Args:
        rank: columns of A and B's product that are independent.
        alpha: strength of the correction.
        part: the name of its rows; "" is the whole layer.
        rows: the first of them, and the one after the last; None is the whole layer.
    """

    rank: int
    alpha: float
    part: str = ""
    rows: tuple[int, int] | None = None


class LoRALinear(nn.Module):
    """``base(x) + alpha / rank * B(A(dropout(x)))``, the base frozen (section 4.1).

    A is drawn as a linear layer's weight is, B begins at zero: at first nothing changes. ``weight``
    and ``bias`` are those of the layer that this one acts as, for whoever multiplies by them itself
    (a part of a fused projection); dropout does not reach there.

    Args:
        base: the layer; A and B are of its dtype and on its device.
        adapters: one of the whole layer, or several of rows of their own.
        dropout: of the input of each A, in training.
    """

    def __init__(self, base: nn.Linear, adapters: Sequence[Adapter], dropout: float = 0.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.adapters = tuple(adapters)
        like: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
        into: dict[str, nn.Linear] = {}
        out: dict[str, nn.Linear] = {}
        for rank, _, part, rows in self.adapters:
            first, last = rows or (0, base.out_features)
            into[part] = nn.Linear(base.in_features, rank, bias=False, **like)
            out[part] = nn.Linear(rank, last - first, bias=False, **like)
            nn.init.kaiming_uniform_(into[part].weight, a=math.sqrt(5))
            nn.init.zeros_(out[part].weight)
        self.lora_a: Any = into.get("") or nn.ModuleDict(into)
        self.lora_b: Any = out.get("") or nn.ModuleDict(out)
        self.dropout = nn.Dropout(dropout)
        # Beside the base, which so stays as it is to the bit; a file never holds it.
        self.merged: Tensor | None
        self.register_buffer("merged", None, persistent=False)
        self.train(base.training)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        """As any module; what was merged is of the weights that were there before."""
        self.merged = None
        super()._load_from_state_dict(*args, **options)

    def pieces(self) -> Iterator[tuple[Adapter, Any, Any]]:
        """Each adapter with its A and its B."""
        for adapter in self.adapters:
            part, a, b = adapter.part, self.lora_a, self.lora_b
            yield (adapter, a[part], b[part]) if part else (adapter, a, b)

    @property
    def weight(self) -> Tensor:
        """``(out, in)``, the corrections included."""
        if self.merged is not None:
            return self.merged
        weight: Tensor = self.base.weight
        for adapter, a, b in self.pieces():
            change = adapter.alpha / adapter.rank * (b.weight @ a.weight)
            weight = add_rows(weight, change, adapter.rows, dim=0)
        return weight

    @property
    def bias(self) -> Tensor | None:
        """``(out)``, the base's."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in) -> (..., out)``."""
        if self.merged is not None:
            return F.linear(x, self.merged, self.base.bias)
        out = self.base(x)
        for adapter, a, b in self.pieces():
            change = adapter.alpha / adapter.rank * b(a(self.dropout(x)))
            out = add_rows(out, change, adapter.rows, dim=-1)
        return out


def add_rows(x: Tensor, change: Tensor, rows: tuple[int, int] | None, dim: int) -> Tensor:
    """``x`` with a change of some rows, which lie along ``dim``; None is of all."""
    if rows is None:
        return x + change
    first, last = rows
    own = x.narrow(dim, first, last - first) + change
    return x.slice_scatter(own, dim, first, last)


def add_lora(
    model: nn.Module,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Iterable[str] = TARGETS,
) -> list[str]:
    """Put a :class:`LoRALinear` around linear layers of a model, and freeze all else.

    A layer that fuses several projections has one A for all of them, unless targets name them as
    if they were layers within it: ``*.qkv.q`` and ``*.qkv.v`` adapt queries and values alone, each
    with an A of its own. So do ``*.key_value.k`` and ``.v`` of cross-attention, and ``*.up.gate``
    and ``*.up.value`` of a gated feed-forward. A pattern that matches the layer adapts it as one.

    Args:
        alpha: None is ``rank``, a factor of 1.
        targets: patterns of the names of layers, as of files: ``*.qkv``, ``encoder.*``.

    Returns:
        the names of the layers, or of their projections.

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
    places: dict[str, tuple[str, Adapter]] = {}
    for layer in linear_layers(model):
        places[layer] = layer, Adapter(rank, alpha)
        for part, rows in projections(model, layer).items():
            places[f"{layer}.{part}"] = layer, Adapter(rank, alpha, part, rows)
    matched = matching(targets, places, "a linear layer")
    chosen = [n for n in matched if places[n][0] == n or places[n][0] not in matched]
    adapters: dict[str, list[Adapter]] = {}
    for name in chosen:
        layer, adapter = places[name]
        adapters.setdefault(layer, []).append(adapter)
    put_adapters(model, adapters, dropout)
    return chosen


def put_adapters(
    model: nn.Module, adapters: Mapping[str, Sequence[Adapter]], dropout: float = 0.0
) -> None:
    """Adapt linear layers, and freeze all else.

    Args:
        adapters: of each layer, by its name.

    Raises:
        ValueError: a layer that has adapters already, or shares its weight with another module.
    """
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    layers = linear_layers(model)
    for name in adapters:
        shared = [o for o in owners[id(layers[name].weight)] if o != f"{name}.weight"]
        if shared:
            raise ValueError(
                f"{name} shares its weight with {shared[0]}, which LoRA would change as well: "
                "leave it out of targets."
            )
    model.requires_grad_(False)
    for name, given in adapters.items():
        replace(model, name, LoRALinear(layers[name], given, dropout))


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """What can be adapted, by name.

    Raises:
        ValueError: something is already.
    """
    if any(True for _ in adapted(model)):
        raise ValueError("the model has LoRA layers already: merge_lora(model, remove=True) first.")
    return {
        name: module
        for name, module in model.named_modules()
        # One with a forward of its own computes something else from its weight.
        if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward
    }


def projections(model: nn.Module, layer: str) -> dict[str, tuple[int, int]]:
    """The projections that a layer fuses: name -> its first row, and the one after the last."""
    parent, _, name = layer.rpartition(".")
    owner = model.get_submodule(parent)
    sizes: dict[str, int] = {}
    if isinstance(owner, Attention):
        queries, keys = owner.heads * owner.head_dim, owner.kv_heads * owner.head_dim
        if name == "qkv":
            sizes = {"q": queries, "k": keys, "v": keys}
        elif name == "key_value":
            sizes = {"k": keys, "v": keys}
    elif isinstance(owner, FeedForward) and owner.gated and name == "up":
        sizes = dict.fromkeys(("gate", "value"), owner.down.in_features)
    found, first = {}, 0
    for part, count in sizes.items():
        found[part] = first, first + count
        first += count
    return found


@torch.no_grad()
def merge_lora(model: nn.Module, remove: bool = False) -> None:
    """Compute each adapted layer by one product again, of the sum of its weights.

    A and B no longer train then; :func:`unmerge_lora` goes back, the base's weight unchanged.

    Args:
        remove: for good: the plain layers come back under their own names, and stay frozen.
    """
    if any(is_quantised(layer.base.weight) for _, layer in adapted(model)):
        raise ValueError("weights in eight bits take no correction: merge before quantise(model).")
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


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Within it, adapted layers compute what their bases do: the model is what it was before."""
    layers = [layer for _, layer in adapted(model)]
    merged = [layer.merged for layer in layers]
    for layer in layers:
        layer.merged = layer.base.weight.detach()  # a parameter would become one of the layer's
    try:
        yield
    finally:
        for layer, weight in zip(layers, merged, strict=True):
            layer.merged = weight


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapters alone: name -> A's or B's weight, for a file of a few megabytes."""
    return {
        f"{name}.{place}": parameter.detach()
        for name, layer in adapted(model)
        for place, parameter in layer.named_parameters()
        if not place.startswith("base.")
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


def nearest(pattern: str, names: Sequence[str]) -> str:
    """What a pattern that matches nothing may have meant: patterns of which each matches something."""
    parents = [name.split(".")[:i] for name in names for i in range(1, name.count(".") + 1)]
    meant = {name: name for name in names}
    for name in names:
        meant.setdefault(name.rpartition(".")[2], f"*.{name.rpartition('.')[2]}")
    for parent in parents:
        for i in range(len(parent)):  # as one may write it, without what stands before
            meant.setdefault(".".join(parent[i:]), f"{'.'.join(parent)}.*")
    core = pattern.strip("*.")
    close = difflib.get_close_matches(core, meant, n=3, cutoff=0.6)
    if near := list(dict.fromkeys(meant[found] for found in close)):
        return f" The nearest are: {', '.join(near)}."
    return f" There are: {', '.join(dict.fromkeys(name.split('.')[0] + '*' for name in names))}."


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
            raise ValueError(f"{pattern!r} matches no name of {kind}.{nearest(pattern, names)}")
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]
