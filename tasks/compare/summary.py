"""What a model is made of, as numbers: parts, shapes, parameters, operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from family.core.transformer import Transformer
from family.look.outline import Outline, outline_of, short
from family.models.member import facts_of
from tasks.compare.flops import flops_by_module

ROWS = 4
"""Of what is drawn, of pictures and texts; a text of 32 tokens."""


@dataclass(frozen=True)
class Row:
    """A part of a model.

    Args:
        name: in the model, with spaces before one that is within another.
        kind: its class.
        gives: the shape of what it gives, if it was run.
        parameters: of its own, each counted where it stands first.
        flops: None where nothing was run.
    """

    name: str
    kind: str
    gives: tuple[int, ...] | None
    parameters: int
    flops: int | None


@dataclass(frozen=True)
class Summary:
    """A model's rows, and what it is as a diagram.

    Args:
        inputs: shapes of what it was run on, by name; none where it was not run.
        learned: how many of its parameters learn.
    """

    outline: Outline
    rows: list[Row]
    inputs: dict[str, tuple[int, ...]]
    flops: int | None
    learned: int


def summary_of(model: Any, name: str) -> Summary:
    """Run a model once on one drawn example, if it says what it reads, and count.

    Args:
        model: on any device; on "meta" nothing is computed.
    """
    model.eval()
    batch = drawn(model)
    call: Callable[[], Any] | None = None if batch is None else partial(model, **batch)
    gives: dict[str, tuple[int, ...]] = {}
    flops: dict[str, int] = {}
    outline = outline_of(model, name, call)
    if call is not None:
        try:
            flops = counted(model, call, gives)
        except (
            RuntimeError,
            ValueError,
            NotImplementedError,
        ):  # data decide, which meta has none of
            batch = None
    seen: set[int] = set()
    rows = []
    for path in (part.name for column in outline.columns for part in column):
        module = model.get_submodule(path)
        rows.append(row_of(path, module, gives, flops, seen))
        if isinstance(module, Transformer):
            rows += within(path, module, gives, flops)
    loose = sum(p.numel() for p in model.parameters() if id(p) not in seen)
    if loose:
        rows.append(Row("(its own)", type(model).__name__, None, loose, None))
    shapes = {} if batch is None else {n: tuple(v.shape) for n, v in batch.items()}
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Summary(outline, rows, shapes, flops.get("") if batch else None, learned)


def drawn(model: Any) -> dict[str, Tensor] | None:
    """One example for a member's ``forward``, without padding, where its weights are; None of others."""
    facts = facts_of(model)
    if facts is None or facts.inputs is None:
        return None
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.device("cpu"):
        more = 0 if "pixel_values" in facts.inputs.dynamic else ROWS
        batch = facts.inputs.draw(model, more)
    return {
        name: value[:1].to(device)
        for name, value in batch.items()
        if value.dtype != torch.bool  # masks, of nothing that is padded
    }


def counted(
    model: nn.Module, call: Callable[[], Any], gives: dict[str, tuple[int, ...]]
) -> dict[str, int]:
    """The operations of a call by module; ``gives`` receives the shapes of what each gave."""

    def noting(name: str) -> Callable[..., None]:
        def hook(module: Any, given: Any, made: Any) -> None:
            if isinstance(made, Tensor):
                gives[name] = tuple(made.shape)

        return hook

    hooks = [m.register_forward_hook(noting(n)) for n, m in model.named_modules() if n]
    # torch's counter follows gradients wherever something asks for them, and stumbles over views of weights.
    learning = [p for p in model.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        with torch.no_grad():
            return flops_by_module(call)
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in learning:
            parameter.requires_grad_(True)


def row_of(
    path: str,
    module: nn.Module,
    gives: dict[str, tuple[int, ...]],
    flops: dict[str, int],
    seen: set[int],
) -> Row:
    own = [p for p in module.parameters() if id(p) not in seen]
    seen.update(map(id, own))
    shape = gives.get(path)
    if shape is None and isinstance(module, Transformer):  # it was walked through
        shape = gives.get(f"{path}.blocks.{len(module.blocks) - 1}")
    count = flops_of(path, module, flops) if flops else None
    return Row(path, type(module).__name__, shape, sum(p.numel() for p in own), count)


def flops_of(path: str, module: nn.Module, flops: dict[str, int]) -> int:
    """Those of a part, or of its pieces where it is not called as a whole."""
    if path in flops:
        return flops[path]
    return sum(flops_of(f"{path}.{name}", child, flops) for name, child in module.named_children())


def within(
    path: str, stack: Transformer, gives: dict[str, tuple[int, ...]], flops: dict[str, int]
) -> list[Row]:
    """The sublayers of a stack, those of all its layers together."""
    depth, rows = len(stack.blocks), []
    for name in ("self_attention", "cross_attention", "feedforward"):
        places = [f"{path}.blocks.{i}.{name}" for i in range(depth)]
        found = [getattr(block, name) for block in stack.blocks]
        if found[0] is None:
            continue
        kind = " / ".join(dict.fromkeys(type(one.sublayer).__name__ for one in found))
        count = sum(p.numel() for one in found for p in one.parameters())
        total = sum(flops.get(place, 0) for place in places) if flops else None
        shown = f"  {depth} \N{MULTIPLICATION SIGN} {name}"
        rows.append(Row(shown, kind, gives.get(places[0]), count, total))
    return rows


def amount(count: int | None) -> str:
    """A number for a reader."""
    return "" if count is None else short(count)
