"""Attention maps, recorded while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from family.core.attention import Attention

Recorder = Callable[[Tensor], Any]


@contextmanager
def record_attention(
    model: nn.Module, gradients: bool = False
) -> Iterator[dict[str, list[Tensor]]]:
    """Record the attention maps of every :class:`Attention` in ``model``, around any use of it.

    Args:
        gradients: keep the maps in the graph, so that each has its ``grad`` after a backward pass.

    Yields:
        module name -> one ``(batch, heads, queries, keys)`` a call, filled as the model runs.
    """
    maps: dict[str, list[Tensor]] = {}
    modules = {name: m for name, m in model.named_modules() if isinstance(m, Attention)}
    before = {name: module.record for name, module in modules.items()}
    for name, module in modules.items():
        maps[name] = []
        module.record = partial(keep, maps[name], gradients, before[name])
    try:
        yield maps
    finally:
        for name, module in modules.items():
            module.record = before[name]


def keep(kept: list[Tensor], gradients: bool, outer: Recorder | None, weights: Tensor) -> None:
    """Put a map to those that a module has made, and tell the recorder around this one."""
    if outer is not None:
        outer(weights)
    if gradients and weights.requires_grad:
        weights.retain_grad()
    kept.append(weights if gradients else weights.detach())
