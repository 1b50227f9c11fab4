"""Rotary positions in transformers' configs, in the layout of version 4 and in that of version 5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from family.core.config import TransformerConfig
from family.core.rotary import RotaryScaling

LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
KINDS: dict[str, tuple[str, ...]] = {"default": (), "linear": ("factor",), "llama3": LLAMA3}
"""Kind of scaling -> its fields, in the order of our ``rotary_scaling``."""
COMMON = {"type", "rope_type", "rope_theta", "partial_rotary_factor"}


def rope_parameters(config: Mapping[str, Any], base: str, fraction: float) -> dict[str, Any]:
    """The parameters as version 5 lays them out: all in one object, none left out.

    Args:
        config: version 5 has ``rope_parameters``; version 4 has the base beside ``rope_scaling``.
        base: what version 4 calls the base.
        fraction: of each head that turns, where ``rope_parameters`` does not say.

    Raises:
        ValueError: a kind of scaling, or a field of one, that we do not support.
    """
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    given = config.get(name) or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{name}={given!r} must be an object of fields, or null.")
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in KINDS:
        raise ValueError(
            f"{name}: rope_type={kind!r} is not supported; known are {', '.join(KINDS)}."
        )
    strange = sorted(given.keys() - COMMON - set(LLAMA3))
    if strange:
        raise ValueError(f"{name} has the field {strange[0]!r}, which is not supported.")
    found = {"rope_theta": config.get(base, 10_000.0), "partial_rotary_factor": fraction, **given}
    if kind == "llama3":
        found.setdefault(LLAMA3[-1], config.get("max_position_embeddings"))
    missing = [field for field in KINDS[kind] if field not in found]
    if missing:
        raise ValueError(f"{name} has no field {missing[0]!r}.")
    return {**found, "rope_type": kind}


def read_rope(
    config: Mapping[str, Any], base: str = "rope_theta", fraction: float = 1.0
) -> tuple[dict[str, Any], float]:
    """Arguments of ours, and the fraction of each head that turns; as :func:`rope_parameters`."""
    found = rope_parameters(config, base, fraction)
    values = [found[field] for field in KINDS[found["rope_type"]]]
    arguments = {
        "config.position": "rotary",
        "config.rotary_base": found["rope_theta"],
        "config.rotary_scaling": (
            RotaryScaling.llama3(*values) if len(values) > 1 else values[0] if values else None
        ),
    }
    return arguments, found["partial_rotary_factor"]


def write_rope(config: TransformerConfig, base: str = "rope_theta") -> dict[str, Any]:
    """The reverse, in both layouts, so that either version reads it."""
    value = config.rotary_scaling
    values: list[Any] = [value]
    kind = "default" if value is None else "linear"
    if isinstance(value, RotaryScaling):
        kind, values = value.kind, [value.factor, value.low, value.high, value.tokens]
    scaling = {"rope_type": kind, **dict(zip(KINDS[kind], values, strict=False))}
    return {
        base: config.rotary_base,
        "rope_scaling": None if value is None else scaling,
        "rope_parameters": {**scaling, "rope_theta": config.rotary_base},
    }
