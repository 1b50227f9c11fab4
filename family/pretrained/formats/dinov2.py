"""DINOv2 (Oquab et al. 2024), without and with registers (Darcet et al. 2024), as transformers and the
hub store it."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from torch import Tensor

from family.models.vit import ViT
from family.pretrained.formats.vit import ATTENTION, ATTENTION_MODULES, FIELDS, stack
from family.pretrained.shared_fields import count_labels, label_fields, rest
from family.pretrained.table import Field, Format, Names, blocks

BLOCK: Names = {
    **ATTENTION,
    "self_attention.norm": "norm1",
    "self_attention.scale": "layer_scale1.lambda1",
    "feedforward.norm": "norm2",
    "feedforward.scale": "layer_scale2.lambda1",
}
PLAIN: Names = {"feedforward.sublayer.up": "mlp.fc1", "feedforward.sublayer.down": "mlp.fc2"}
GATED: Names = {
    "feedforward.sublayer.up": "mlp.weights_in",
    "feedforward.sublayer.down": "mlp.weights_out",
}
GATED_MODULES: Names = {
    "feedforward.sublayer.up": ("mlp.gate_proj", "mlp.up_proj"),
    "feedforward.sublayer.down": "mlp.down_proj",
}
"""What version 5 of transformers calls them in memory."""


def names(beginning: str, vit: ViT) -> Names:
    block = {**BLOCK, **(GATED if vit.config.gated else PLAIN)}
    tokens = ("cls_token", "", "register_tokens")
    return {**stack(vit, f"{beginning}.", tokens, block), "head": "classifier"}


def modules(beginning: str, vit: ViT) -> Names:
    block = {**ATTENTION_MODULES, **(GATED_MODULES if vit.config.gated else PLAIN)}
    return blocks("transformer", f"{beginning}.encoder.layer.{{}}", block)


def ffn_dim(dim: int, ratio: float, gated: bool) -> int:
    """Gated, two thirds of the plain width, rounded up to a multiple of 8."""
    hidden = int(dim * ratio)
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    gated, ratio = config.get("use_swiglu_ffn", False), config.get("mlp_ratio", 4)
    classes = "classifier.weight" in names
    patch_size = config.get("patch_size", 14 if config["model_type"] == "dinov2" else 16)
    return {
        **rest(config.get("image_size", 224), patch_size),
        "config.ffn_dim": ffn_dim(config["hidden_size"], ratio, gated),
        **({"config.activation": "silu"} if gated else {}),
        "num_classes": count_labels(config) if classes else 0,
        "pooling.kind": "class+mean" if classes else "class",
    }


def written(vit: ViT, config: dict[str, Any]) -> dict[str, Any]:
    stack = vit.config
    assert stack.ffn_dim is not None
    ratio = round(stack.ffn_dim / stack.dim * (1.5 if stack.gated else 1))
    registers = config["model_type"] != "dinov2"
    model = "Dinov2WithRegisters" if registers else "Dinov2"
    kind = f"{model}ForImageClassification" if vit.num_classes else f"{model}Model"
    unmasked = {} if registers else {"use_mask_token": False}
    return {
        "mlp_ratio": ratio,
        "architectures": [kind],
        **unmasked,
        **label_fields(vit, vit.num_classes),
    }


def mask_token(vit: ViT) -> dict[str, Tensor]:
    """What training puts in the place of hidden patches; with registers, no config can leave it out."""
    token = vit.embedding.projection.weight.new_zeros(1, vit.config.dim)
    return {"dinov2_with_registers.embeddings.mask_token": token}


FORMAT = Format(
    name="dinov2",
    member=ViT,
    model_types=("dinov2",),
    architectures=("Dinov2Model", "Dinov2ForImageClassification"),
    fields=(
        *FIELDS,
        Field("config.gated", "use_swiglu_ffn", False),
        Field("config.layer_scale", "layerscale_value", 1.0),
        Field("config.drop_path", "drop_path_rate", 0.0),
        Field("config.norm_eps", "layer_norm_eps", 1e-6),
        Field("patch_size", "patch_size", 14),
    ),
    constants={
        "config.position": "learned",
        "patches.interpolation": "bicubic",
        "pooling.norm_after": False,
    },
    prefix="dinov2.",
    ignored=(r"embeddings\.mask_token$",),
    names=partial(names, "dinov2"),
    modules=partial(modules, "dinov2"),
    detect=arguments,
    finish=written,
    image_processor="BitImageProcessor",
)
REGISTERS = dataclasses.replace(
    FORMAT,
    name="dinov2_with_registers",
    model_types=("dinov2_with_registers",),
    architectures=("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"),
    fields=(
        *FORMAT.fields[:-1],
        Field("patch_size", "patch_size", 16),
        Field("patches.register_tokens", "num_register_tokens", 4),
    ),
    constants={
        **FORMAT.constants,
        "patches.prefix_positions": "class",
        "patches.interpolation": "antialiased",
    },
    prefix="dinov2_with_registers.",
    names=partial(names, "dinov2_with_registers"),
    modules=partial(modules, "dinov2_with_registers"),
    unread=mask_token,
)
