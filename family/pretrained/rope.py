"""Rotary positions in transformers' configs, in the layout of version 4 and in that of version 5."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from family.core.config import TransformerConfig
from family.core.rotary import RotaryScaling
from family.pretrained.shared_fields import ratio

CONTEXT = "original_max_position_embeddings"
"""The context of pre-training."""
KINDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", CONTEXT),
    "yarn": ("factor", CONTEXT),
    "longrope": ("factor", CONTEXT, "short_factor", "long_factor"),
}
"""Kind of scaling -> the fields that it must have."""
KNOWN = {
    *("type", "rope_type", "rope_theta", "partial_rotary_factor"),
    *("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    *(field for fields in KINDS.values() for field in fields),
}


def rope_parameters(
    config: Mapping[str, Any], base: str, fraction: float, theta: float
) -> dict[str, Any]:
    """The parameters as version 5 lays them out: all in one object, none left out.

    Args:
        config: version 5 has ``rope_parameters``; version 4 has the base beside ``rope_scaling``.
        base: what version 4 calls the base.
        fraction: of each head that turns, where ``rope_parameters`` does not say.
        theta: the base, where none is given.

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
    strange = sorted(given.keys() - KNOWN)
    if strange:
        raise ValueError(f"{name} has the field {strange[0]!r}, which is not supported.")
    found = {"rope_theta": config.get(base, theta), "partial_rotary_factor": fraction, **given}
    longest = config.get("max_position_embeddings")
    if CONTEXT in config:  # beside the object, where it has the last word (Phi-3)
        found[CONTEXT] = config[CONTEXT]
    if kind == "longrope":
        found.setdefault(CONTEXT, longest)
    if kind in ("yarn", "longrope") and longest and found.get(CONTEXT) and not found.get("factor"):
        found["factor"] = longest / found[CONTEXT]
    found.setdefault(CONTEXT, longest)
    missing = [field for field in KINDS[kind] if found.get(field) is None]
    if missing:
        raise ValueError(f"{name} has no field {missing[0]!r}.")
    return {**found, "rope_type": kind}


def read_rope(
    config: Mapping[str, Any],
    base: str = "rope_theta",
    fraction: float = 1.0,
    theta: float = 10_000.0,
) -> tuple[dict[str, Any], float]:
    """Arguments of ours, and the fraction of each head that turns; as :func:`rope_parameters`.

    Where version 5 has parameters for each kind of layer, ``config`` is ``{"rope_parameters": those
    of one kind}``, with ``max_position_embeddings`` beside it.
    """
    found = rope_parameters(config, base, fraction, theta)
    arguments = {
        "config.position": "rotary",
        "config.rotary_base": found["rope_theta"],
        "config.rotary_scaling": read_scaling(found),
    }
    return arguments, found["partial_rotary_factor"]


def read_scaling(found: Mapping[str, Any]) -> RotaryScaling | float | None:
    """Our scaling, from what :func:`rope_parameters` found."""
    kind, factor, magnitude = found["rope_type"], found.get("factor"), found.get("attention_factor")
    if kind == "default":
        return None
    if kind == "linear":
        return factor
    if kind == "llama3":
        return RotaryScaling.llama3(*(found[field] for field in KINDS[kind]))
    tokens = int(found[CONTEXT])
    if kind == "longrope":
        if magnitude is None:
            magnitude = longrope_magnitude(found["factor"], tokens)
        short, long = found["short_factor"], found["long_factor"]
        return RotaryScaling(kind, 1.0, tokens, magnitude=magnitude, short=short, long=long)
    if magnitude is None:
        over, under = found.get("mscale"), found.get("mscale_all_dim")
        if not (over and under):
            over, under = 1.0, 0.0
        magnitude = yarn_magnitude(found["factor"], over) / yarn_magnitude(found["factor"], under)
    return RotaryScaling(
        kind,
        found["factor"],
        tokens,
        low=found.get("beta_slow") or 1.0,
        high=found.get("beta_fast") or 32.0,
        magnitude=magnitude,
        truncate=found.get("truncate", True),
    )


def yarn_magnitude(factor: float, scale: float = 1.0) -> float:
    """Of a context that is so many times as long (YaRN, section 3.3)."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def longrope_magnitude(factor: float, tokens: int) -> float:
    """Of a context that is so many times as long as ``tokens`` (LongRoPE, as Phi-3 has it)."""
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(tokens))


def write_rope(config: TransformerConfig, base: str = "rope_theta") -> dict[str, Any]:
    """The reverse, in both layouts, so that either version reads it."""
    scaling = write_scaling(config.rotary_scaling)
    return {
        base: config.rotary_base,
        "rope_scaling": scaling if len(scaling) > 1 else None,
        "rope_parameters": {**scaling, "rope_theta": config.rotary_base},
    }


def write_scaling(scaling: RotaryScaling | float | None) -> dict[str, Any]:
    """The reverse of :func:`read_scaling`, with nothing left to be derived."""
    if scaling is None:
        return {"rope_type": "default"}
    if not isinstance(scaling, RotaryScaling):
        return {"rope_type": "linear", "factor": scaling}
    fields: dict[str, Any] = {"rope_type": scaling.kind}
    if scaling.kind != "longrope":
        fields["factor"] = scaling.factor
    if scaling.kind != "linear":
        fields[CONTEXT] = scaling.tokens
    if scaling.kind == "llama3":
        fields |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
    if scaling.kind == "yarn":
        fields |= {"beta_fast": scaling.high, "beta_slow": scaling.low}
        if not scaling.truncate:
            fields["truncate"] = False
    if scaling.kind == "longrope":
        fields |= {"short_factor": list(scaling.short), "long_factor": list(scaling.long)}
    if scaling.kind in ("yarn", "longrope"):
        fields["attention_factor"] = scaling.magnitude
    return fields


def rotary_dim(config: Mapping[str, Any], fraction: float) -> int:
    """How many channels of a head turn."""
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(head_dim * fraction)


def turning_fraction(config: TransformerConfig) -> float:
    """The reverse: such that their rounding down arrives at ``rotary_dim``."""
    assert config.rotary_dim is not None and config.head_dim is not None
    return ratio(config.rotary_dim, config.head_dim)
