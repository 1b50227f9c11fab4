"""Weights, and the outputs of every layer, of transformers' DETR."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SELF_ATTENTION = {
    "self_attention.norm": ["self_attn_layer_norm"],
    "self_attention.sublayer.qkv": [f"self_attn.{n}_proj" for n in "qkv"],
    "self_attention.sublayer.out": ["self_attn.o_proj"],
    "feedforward.norm": ["final_layer_norm"],
    "feedforward.sublayer.up": ["mlp.fc1"],
    "feedforward.sublayer.down": ["mlp.fc2"],
}
CROSS_ATTENTION = {
    "cross_attention.norm": ["encoder_attn_layer_norm"],
    "cross_attention.sublayer.query": ["encoder_attn.q_proj"],
    "cross_attention.sublayer.key_value": [f"encoder_attn.{n}_proj" for n in "kv"],
    "cross_attention.sublayer.out": ["encoder_attn.o_proj"],
}


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


def weights(theirs: nn.Module, ours: nn.Module, gradients: bool = False) -> dict[str, Tensor]:
    """Their weights, or the gradients of these, under our names."""
    state = dict(theirs.state_dict())
    if gradients:
        state = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    named = {
        "queries.weight": state["model.query_position_embeddings.weight"],
        "project.weight": state["model.input_projection.weight"],
        "project.bias": state["model.input_projection.bias"],
    }
    for kind in ("weight", "bias"):
        named[f"decoder.norm.{kind}"] = state[f"model.decoder.layernorm.{kind}"]
        named[f"head.classes.{kind}"] = state[f"class_labels_classifier.{kind}"]
        for layer in range(3):
            named[f"head.box.{2 * layer}.{kind}"] = state[f"bbox_predictor.layers.{layer}.{kind}"]
    for stack, table in (
        ("encoder", SELF_ATTENTION),
        ("decoder", SELF_ATTENTION | CROSS_ATTENTION),
    ):
        for i in range(len(getattr(ours, stack).blocks)):
            for our_name, parts in table.items():
                for kind in ("weight", "bias"):
                    values = [state[f"model.{stack}.layers.{i}.{part}.{kind}"] for part in parts]
                    named[f"{stack}.blocks.{i}.{our_name}.{kind}"] = torch.cat(values)
    for name, value in ours.state_dict().items():
        theirs_name = name.replace("backbone.net.", "model.backbone.model.")
        if name.endswith("num_batches_tracked"):
            named[name] = value
        elif name.startswith("backbone.") and theirs_name in state:
            named[name] = state[theirs_name]
    return named


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
