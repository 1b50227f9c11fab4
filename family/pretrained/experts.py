"""Experts that a file packs together: transformers 5 keeps those of a layer in two tensors."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from torch import Tensor

from family.pretrained.weights import Place, Weights

PACKED = re.compile(r"(.+\.experts)\.(gate_up_proj|down_proj)")


def split_experts(gate: str, up: str, down: str) -> Callable[[Weights], Weights]:
    """Gives each expert's layers names of their own, as the files of the hub have them.

    Args:
        gate, up, down: what these call the layers.
    """

    def opened(weights: Weights) -> Weights:
        places: dict[str, Place] = {}
        for name, place in weights.places.items():
            found = PACKED.fullmatch(name)
            if found is None:
                places[name] = place
                continue
            parts = (gate, up) if found[2] == "gate_up_proj" else (down,)
            for i in range(len(weights.read(name))):
                for number, part in enumerate(parts):
                    one = partial(share, weights, name, i, number, len(parts))
                    places[f"{found[1]}.{i}.{part}.weight"] = one
        return Weights(places, weights.origin)

    return opened


def share(weights: Weights, name: str, expert: int, number: int, parts: int) -> Tensor:
    """One of so many equal parts of an expert's rows in ``(experts, rows, columns)``."""
    return weights.read(name)[expert].chunk(parts)[number]
