"""The outputs of every layer of transformers' DETR, and its matching."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def randomise_backbone(model: nn.Module, seed: int = 1) -> None:
    """Their frozen norms are buffers: draw these away from 0 and 1 as well; keep features small."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.copy_(noise * parameter[0].numel() ** -0.5)
    for name, buffer in model.named_buffers():
        if name.endswith(("weight", "bias", "running_mean", "running_var")):
            noise = torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype)
            buffer.copy_(noise + 0.5 if name.endswith(("weight", "var")) else noise - 0.5)


def matcher(**costs: float) -> nn.Module:
    from transformers.loss.loss_for_object_detection import HungarianMatcher

    return HungarianMatcher(**costs)


def run(theirs: nn.Module, pixels: Tensor, mask: Tensor) -> tuple[Any, Tensor, Tensor]:
    """Their output, and logits and boxes ``(layers, batch, queries, ...)`` of every layer.

    With ``auxiliary_loss=True`` their decoder hands the *normed* state on to the next layer, which
    the published model does not; so the layers' outputs are taken by hooks, and normed here.
    """
    states: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: states.append(output))
        for layer in theirs.model.decoder.layers
    ]
    output = theirs(pixels, mask)
    for hook in hooks:
        hook.remove()
    hidden = theirs.model.decoder.layernorm(torch.stack(states))
    logits, boxes = theirs.class_labels_classifier(hidden), theirs.bbox_predictor(hidden).sigmoid()
    return output, logits, boxes
