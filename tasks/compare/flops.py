"""Floating-point operations, counted as they run."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def counted_flops(function: Callable[[], Any]) -> int:
    """The operations of a call by torch's own counter: products of matrices and convolutions.

    A product and a sum are two. Attention is counted as its kernel's whole square, causal or not,
    and LSTMs too, which the counter passes over. What a call works out in its backward pass counts
    if the call runs it.
    """
    with FlopCounterMode(display=False, custom_mapping=recurrent_kernels()) as counter:
        function()
    return int(counter.get_total_flops())


def recurrent_kernels() -> dict[Any, Callable[..., int]]:
    """The kernels of LSTMs, oneDNN's and cuDNN's, and how to count each."""
    kernels = ("mkldnn_rnn_layer", "_cudnn_rnn")
    found = {}
    for name in kernels:
        for kernel, times in ((name, 1), (f"{name}_backward", 2)):
            if hasattr(torch.ops.aten, kernel):
                found[getattr(torch.ops.aten, kernel)] = recurrent_formula(times)
    return found


def recurrent_formula(times: int) -> Callable[..., int]:
    """Every token goes through every matrix: from the shapes of a kernel's input and weights."""

    def count(tokens: Any, first: Any, second: Any, *_: Any, **__: Any) -> int:
        # oneDNN gets the two matrices of a layer, cuDNN a list of all weights.
        weights = first if isinstance(first, list) else [first, second]
        return times * 2 * prod(tokens[:-1]) * sum(prod(w) for w in weights if len(w) == 2)

    return count


def flops_by_module(function: Callable[[], Any]) -> dict[str, int]:
    """As :func:`counted_flops`, of each module by its name within the one that is called; "" is the whole."""
    with FlopCounterMode(display=False, custom_mapping=recurrent_kernels()) as counter:
        function()
    counts = {
        name.partition(".")[2]: int(sum(kinds.values()))
        for name, kinds in counter.get_flop_counts().items()
        if name != "Global"
    }
    return {**counts, "": int(counter.get_total_flops())}
