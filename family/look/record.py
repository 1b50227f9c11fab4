"""Attention maps, recorded while a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from family.core.attention import Attention


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Record the attention maps of every :class:`Attention` in ``model``, around any use of it.

    Yields:
        module name -> one ``(batch, heads, queries, keys)`` a call, filled as the model runs.
    """
    maps: dict[str, list[Tensor]] = {}
    modules = {name: m for name, m in model.named_modules() if isinstance(m, Attention)}
    for name, module in modules.items():
        module.record = maps[name] = []
    try:
        yield maps
    finally:
        for module in modules.values():
            module.record = None
