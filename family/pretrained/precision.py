"""The numbers of a model's weights: one floating-point type for all of them, and none that are quantised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from family.pretrained.convert import file_names
from family.pretrained.table import Format
from family.pretrained.weights import Weights

FIELDS = ("quantization_config", "compression_config")
"""What a config calls the way in which weights are quantised; the second is of older files."""
WHOLE = ("float64", "float32", "bfloat16", "float16")
OTHERS = ("int64", "bool")
"""What counters and masks are in, and no weights, quantised or not."""


def refuse_quantised(config: Mapping[str, Any], origin: str) -> None:
    """Refuse what needs scales and kernels that we do not have, be it said of weights that are whole:
    their library would quantise these.

    Raises:
        ValueError: the config, or that of a part, names a way of quantising.
    """
    for name, value in quantisations(config):
        raise ValueError(
            f"{origin}: {name} ({method(value)}): quantised weights are not supported; take the model "
            "in 16 or 32 bits, or, where its weights are so, delete this field."
        )


def quantisations(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields that say so, by dotted names."""
    for name, value in config.items():
        if name in FIELDS and value:
            yield prefix + name, value
        elif isinstance(value, Mapping) and not prefix:
            yield from quantisations(value, f"{name}.")


def method(value: Any) -> str:
    """The name of a way of quantising, and its bits, as far as its fields say them."""
    if not isinstance(value, Mapping):
        return repr(value)
    bits = next((value[name] for name in ("bits", "w_bit") if name in value), None)
    for count in (4, 8):
        bits = count if value.get(f"load_in_{count}bit") else bits
    usual = "bitsandbytes" if any(name.startswith("load_in_") for name in value) else "unknown"
    named = str(value.get("quant_method") or usual)
    return named if bits is None else f"{named}, {bits} bits"


def check_stored(layout: Format, weights: Weights) -> None:
    """Refuse weights that are no numbers by themselves, before a model is built.

    Raises:
        ValueError: one of 8 bits, or several packed into one number.
    """
    kinds = weights.kinds()
    for name in file_names(layout, weights).values():
        kind = kinds.get(name)
        if kind is not None and kind not in (*WHOLE, *OTHERS):
            raise ValueError(
                f"{weights.origin}: the weight {name} is {kind}: quantised weights are not supported; "
                "take the model in 16 or 32 bits."
            )


def common_dtype(said: Any, weights: Weights) -> torch.dtype | None:
    """The type that all weights of a model are given, as transformers chooses it: what its config says, or
    else that of the first; None where both leave it open.

    Args:
        said: the field of the config.
    """
    name = str(said).removeprefix("torch.")
    kinds = weights.kinds()
    found = name if name in WHOLE else next((k for k in kinds.values() if k in WHOLE), None)
    return None if found is None else getattr(torch, found)
