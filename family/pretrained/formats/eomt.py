"""EoMT (Kerssies et al. 2025), as transformers and the hub store it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from family.losses.mask_matching import MaskLoss
from family.models.eomt import EoMT
from family.pretrained.formats.vit import FIELDS, prefix
from family.pretrained.shared_fields import count_labels, label_fields
from family.pretrained.table import Field, Format, Names, blocks, nested

BLOCK: Names = {
    "self_attention.norm": "norm1",
    "self_attention.sublayer.qkv": tuple(f"attention.{part}_proj" for part in "qkv"),
    "self_attention.sublayer.out": "attention.out_proj",
    "self_attention.scale": "layer_scale1.lambda1",
    "feedforward.norm": "norm2",
    "feedforward.sublayer.up": "mlp.fc1",
    "feedforward.sublayer.down": "mlp.fc2",
    "feedforward.scale": "layer_scale2.lambda1",
}
LOSS = MaskLoss()


def names(model: EoMT) -> Names:
    tokens = ("embeddings.cls_token", "", "embeddings.register_tokens")
    encoder: Names = {
        "embedding.projection": "embeddings.patch_embeddings.projection",
        "embedding.prefix.weight": prefix(model.encoder, tokens),
        "embedding.position": "embeddings.position_embeddings",
        "transformer.norm": "layernorm",
        **blocks("transformer", "layers.{}", BLOCK),
    }
    table = dict(nested(encoder, "encoder."))
    for i in range(len(model.upscaling)):
        parts = {"enlarge": "conv1", "smooth": "conv2", "norm": "layernorm2d"}
        theirs = f"upscale_block.block.{i}."
        table |= nested(parts, f"upscaling.{i}.", theirs)
    return {
        **table,
        "queries": "query",
        "classes": "class_predictor",
        **{f"mask.{2 * i}": f"mask_head.fc{i + 1}" for i in range(3)},
        "masked": "attn_mask_probs",
    }


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    width = config.get("hidden_size", 1024) * config.get("mlp_ratio", 4)
    return {"config.ffn_dim": int(width), "num_classes": count_labels(config)}


def written(model: EoMT, config: dict[str, Any]) -> dict[str, Any]:
    height, width = model.image_size
    if height != width or len({*model.patch_size}) > 1:
        raise ValueError(
            f"format='eomt' cannot express image_size={model.image_size} and patch_size="
            f"{model.patch_size}: both must be square."
        )
    assert model.config.ffn_dim is not None
    ratio = model.config.ffn_dim / model.config.dim
    return {"mlp_ratio": int(ratio), **label_fields(model, model.num_classes)}


def class_weights(model: EoMT) -> dict[str, Tensor]:
    """Of their loss, which is a part of their model."""
    weight = model.classes.weight.new_ones(model.num_classes + 1)
    weight[-1] = LOSS.no_object_weight
    return {"criterion.empty_weight": weight}


FORMAT = Format(
    name="eomt",
    member=EoMT,
    model_types=("eomt",),
    architectures=("EomtForUniversalSegmentation",),
    fields=(
        *(f for f in FIELDS if f.ours not in ("config.qkv_bias", "config.dropout", "image_size")),
        Field("image_size", "image_size", 640),
        Field("patch_size", "patch_size", 16),
        Field("queries", "num_queries", 200),
        Field("query_blocks", "num_blocks", 4),
        Field("upscaling", "num_upscale_blocks", 2),
        Field("patches.register_tokens", "num_register_tokens", 4),
        Field("config.layer_scale", "layerscale_value", 1.0),
    ),
    constants={
        "config.position": "learned",
        "config.norm_eps": 1e-6,
        "patches.prefix_positions": False,
    },
    fixed={
        "hidden_act": "gelu",  # of the masks' layers too
        "layer_norm_eps": 1e-6,
        "use_swiglu_ffn": False,
        "hidden_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "class_weight": LOSS.class_weight,
        "mask_weight": LOSS.mask_weight,
        "dice_weight": LOSS.dice_weight,
        "no_object_weight": LOSS.no_object_weight,
    },
    ignored=(r"^criterion\.",),
    names=names,
    detect=arguments,
    finish=written,
    unread=class_weights,
)
