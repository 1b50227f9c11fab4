"""How unlike two pictures look to a network that was trained to tell pictures apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = 4
"""Stages of the network that are compared, at most."""


class Perceptual:
    """The squared distance of features at several depths of a frozen network, each of length 1 over its
    channels (Zhang et al. 2018, section 3, all weights 1): the mean over places, the sum over depths.

    No module: the network is no part of what is trained, nor of its checkpoints.

    Args:
        network: ``network(pixel_values)``; it is frozen here. Its parts of one kind, one after the other,
            are its stages: the blocks of a stack, the stages of a ResNet.
        mean, std: of its pixels, on the scale 0..1.
        size: ``(height, width)`` of its pictures.

    Raises:
        ValueError: a network without such stages.
    """

    def __init__(
        self, network: Any, mean: Sequence[float], std: Sequence[float], size: tuple[int, int]
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.mean, self.std, self.size = tuple(mean), tuple(std), tuple(size)
        found = stages(network)
        if not found:
            raise ValueError(
                f"a {type(network).__name__} has no stages, several parts of one kind, whose features "
                "could be compared."
            )
        count = min(DEPTHS, len(found))
        self.stages = [found[-1 - i * len(found) // count] for i in reversed(range(count))]

    def __call__(self, made: Tensor, true: Tensor) -> Tensor:
        """A number for ``(batch, 3, height, width)`` in -1..1 each, with gradients to ``made``."""
        with torch.no_grad():
            wanted = self.features(true)
        pairs = zip(self.features(made), wanted, strict=True)
        distances = [(one - other).square().sum(-1).mean() for one, other in pairs]
        return torch.stack(distances).sum()

    def features(self, pixel_values: Tensor) -> list[Tensor]:
        """At each depth, ``(batch, places, channels)`` of length 1, in float32 at least."""
        self.network.to(pixel_values.device)
        mean, std = (pixel_values.new_tensor(x)[:, None, None] for x in (self.mean, self.std))
        pixels = (pixel_values / 2 + 0.5 - mean) / std
        if pixels.shape[-2:] != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        seen: list[Tensor] = []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            seen.append(output[0] if isinstance(output, tuple) else output)

        hooks = [stage.register_forward_hook(keep) for stage in self.stages]
        try:
            self.network(pixels)
        finally:
            for hook in hooks:
                hook.remove()
        kinds = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in seen)
        return [F.normalize(channels_last(x), dim=-1) for x in kinds]


def stages(network: nn.Module) -> list[nn.Module]:
    """The outermost parts of one kind that have parts and weights of their own, two at least, in their
    order; none where there are no such."""
    level = [network]
    while level:
        for module in level:
            parts = [p for p in module.children() if composed(p)]
            kinds = Counter(map(type, parts)).most_common(1)
            if kinds and kinds[0][1] > 1:
                return [part for part in parts if type(part) is kinds[0][0]]
        level = [part for module in level for part in module.children()]
    return []


def composed(module: nn.Module) -> bool:
    """Whether it has parts and weights."""
    return None not in (next(module.children(), None), next(module.parameters(), None))


def channels_last(x: Tensor) -> Tensor:
    """``(batch, places, channels)`` of a map ``(batch, channels, height, width)``; else as it is."""
    return x.flatten(2).transpose(1, 2) if x.dim() == 4 else x
