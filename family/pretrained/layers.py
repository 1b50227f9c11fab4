"""Layers that differ: what published configs say layer by layer, and our ``config.layers``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from family.core.config import TransformerConfig


def to_layers(overrides: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """``config.layers`` of a stack, from the fields that each of its layers overrides.

    This is the one form that formats use: the shortest list that, over and over down the stack, says
    the same; none where no layer overrides anything.
    """
    if not any(overrides):
        return []
    count = len(overrides)
    for length in range(1, count):
        if all(overrides[i] == overrides[i % length] for i in range(length, count)):
            return list(overrides[:length])
    return list(overrides)


def by_layer(config: TransformerConfig, name: str) -> list[Any]:
    """The reverse: the value that a field has in each layer of a stack."""
    return [getattr(config.at(i), name) for i in range(config.depth)]
