"""Layers that differ, in the one form that formats use."""

from __future__ import annotations

import pytest

from family import TransformerConfig
from family.pretrained.layers import by_layer, to_layers

NEAR, FAR = {"window": 4}, {}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], []),
        ([FAR, FAR, FAR], []),
        ([NEAR, NEAR, NEAR], [NEAR]),
        ([NEAR, FAR, NEAR, FAR], [NEAR, FAR]),
        ([NEAR, NEAR, FAR, NEAR, NEAR], [NEAR, NEAR, FAR]),  # the last round is cut off
        ([FAR, NEAR, NEAR], [FAR, NEAR, NEAR]),
        ([NEAR], [NEAR]),
    ],
)
def test_shortest_pattern(overrides, expected):
    assert to_layers(overrides) == expected


@pytest.mark.parametrize(
    "overrides", [[NEAR, NEAR, FAR, NEAR, NEAR], [FAR] * 5, [FAR] * 4 + [NEAR]]
)
def test_pattern_says_what_each_layer_did(overrides):
    config = TransformerConfig(depth=5, causal=True, window=9, layers=tuple(to_layers(overrides)))
    assert by_layer(config, "window") == [override.get("window", 9) for override in overrides]
