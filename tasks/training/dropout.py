"""Dropout off: where a model is compared with another of the same weights, the two must not differ by chance."""

from __future__ import annotations

from torch import nn

RATES = ("dropout", "drop_path")
"""What our layers call theirs."""


def without_dropout(model: nn.Module) -> None:
    """Set all of a model's dropout to 0, for good; its mode stays as it is."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name in RATES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
