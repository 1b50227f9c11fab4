"""Layers that differ: what published configs say layer by layer, and our ``config.layers``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from family.core.config import TransformerConfig
from family.models.member import plain

FULL, SLIDING = "full_attention", "sliding_attention"
"""What ``layer_types`` calls layers that see all, and those that see a window."""


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


def spread(fields: dict[str, Any]) -> dict[str, Any]:
    """The plain fields of a stack without ``layers``: where these make a difference, a field is the list
    of its values in all layers. Two that are equal then describe the same stack."""
    config = TransformerConfig(**fields)
    each = [plain(config.at(i)) for i in range(config.depth)]
    return {
        name: first if all(layer[name] == first for layer in each) else [x[name] for x in each]
        for name, first in each[0].items()
    }


def used_window(config: Mapping[str, Any], default: int | None = None) -> int | None:
    """``sliding_window``, if ``use_sliding_window`` says that some layers have it."""
    return config.get("sliding_window", default) if config.get("use_sliding_window") else None


def read_windows(
    config: Mapping[str, Any], window: int | None, sliding: Sequence[bool]
) -> list[dict[str, Any]]:
    """What each layer overrides, by ``layer_types``.

    Args:
        window: of the layers that do not see all.
        sliding: which layers these are, where ``layer_types`` does not say.

    Raises:
        ValueError: a list of another length, an unknown kind, or no window for layers that want one.
    """
    kinds = config.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != len(sliding):
            raise ValueError(
                f"layer_types={kinds!r} must be a list of {len(sliding)}, one a layer."
            )
        strange = [kind for kind in kinds if kind not in (FULL, SLIDING)]
        if strange:
            raise ValueError(f"layer_types has {strange[0]!r}, which is not supported.")
        sliding = [kind == SLIDING for kind in kinds]
    if any(sliding) and window is None:
        given = {name: config.get(name) for name in ("use_sliding_window", "sliding_window")}
        raise ValueError(
            f"layer_types has {SLIDING!r}, but "
            + " with ".join(f"{name}={value!r}" for name, value in given.items())
            + " is no window."
        )
    return [{"window": window} if near else {} for near in sliding]


def write_windows(config: TransformerConfig) -> dict[str, Any]:
    """The reverse."""
    windows = by_layer(config, "window")
    used = [window for window in windows if window is not None]
    return {
        "use_sliding_window": bool(used),
        "sliding_window": used[0] if used else None,
        "layer_types": [FULL if window is None else SLIDING for window in windows],
    }
