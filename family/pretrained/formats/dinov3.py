"""DINOv3's ViT (Siméoni et al. 2025), as transformers and the hub store it.

What it does to coordinates in training alone (``pos_embed_shift``, ``pos_embed_jitter`` and
``pos_embed_rescale``) has no place with us, nor what its form as a backbone says of feature maps
(``apply_layernorm``, ``reshape_hidden_states``, ``out_indices``).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from family.models.vit import ViT
from family.pretrained.shared_fields import ACTIVATIONS, rest
from family.pretrained.table import FIRST, Field, Format, Names, Row, blocks

BLOCK: Names = {
    "self_attention.norm": "norm1",
    "self_attention.sublayer.qkv": tuple(f"attention.{part}_proj" for part in "qkv"),
    "self_attention.sublayer.query_bias": "attention.q_proj.bias",
    "self_attention.sublayer.value_bias": "attention.v_proj.bias",
    "self_attention.sublayer.out": "attention.o_proj",
    "self_attention.scale": "layer_scale1.lambda1",
    "feedforward.norm": "norm2",
    "feedforward.sublayer.down": "mlp.down_proj",
    "feedforward.scale": "layer_scale2.lambda1",
}


def stack(vit: ViT, theirs: str) -> Names:
    up = ("mlp.gate_proj", "mlp.up_proj") if vit.config.gated else "mlp.up_proj"
    return blocks("transformer", theirs, {**BLOCK, "feedforward.sublayer.up": up})


def names(vit: ViT) -> Names:
    # Without registers, files hold a table of none.
    tokens = ("embeddings.cls_token", "embeddings.register_tokens")
    return {
        "embedding.projection": "embeddings.patch_embeddings",
        "embedding.prefix.weight": Row(tokens, FIRST, (1, vit.num_prefix_tokens - 1)),
        "transformer.norm": "norm",
        "head": "classifier",  # for classes of one's own: theirs have none
        **stack(vit, "layer.{}"),
    }


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    biased, of_keys = config.get("query_bias", True), config.get("key_bias", False)
    if of_keys and not biased:
        raise ValueError("key_bias=True with query_bias=False is not supported.")
    return {
        "config.key_bias": of_keys or not biased,
        **rest(config.get("image_size", 224), config.get("patch_size", 16)),
    }


def written(vit: ViT, config: dict[str, Any]) -> dict[str, Any]:
    return {"key_bias": bool(vit.config.qkv_bias) and vit.config.key_bias}


def mask_token(vit: ViT) -> dict[str, Tensor]:
    """What training puts in the place of hidden patches; no config can leave it out."""
    token = vit.embedding.projection.weight.new_zeros(1, 1, vit.config.dim)
    return {"embeddings.mask_token": token}


FORMAT = Format(
    name="dinov3_vit",
    member=ViT,
    model_types=("dinov3_vit",),
    architectures=("DINOv3ViTModel",),
    fields=(
        Field("config.dim", "hidden_size", 384),
        Field("config.depth", "num_hidden_layers", 12),
        Field("config.heads", "num_attention_heads", 6),
        Field("config.ffn_dim", "intermediate_size", 1536),
        Field("config.activation", "hidden_act", "gelu", ACTIVATIONS),
        Field("config.gated", "use_gated_mlp", False),
        Field("config.norm_eps", "layer_norm_eps", 1e-5),
        Field("config.layer_scale", "layerscale_value", 1.0),
        Field("config.rotary_base", "rope_theta", 100.0),
        Field("config.qkv_bias", "query_bias", True),
        Field("config.qkv_bias", "value_bias", True),
        Field("config.out_bias", "proj_bias", True),
        Field("config.bias", "mlp_bias", True),
        Field("config.attention_dropout", "attention_dropout", 0.0),
        Field("config.drop_path", "drop_path_rate", 0.0),
        Field("image_size", "image_size", 224),
        Field("patch_size", "patch_size", 16),
        Field("patches.channels", "num_channels", 3),
        Field("patches.register_tokens", "num_register_tokens", 0),
    ),
    constants={
        "num_classes": 0,
        "config.position": "rotary",
        "patches.coordinates": "centre",
        "pooling.norm_after": False,
    },
    ignored=(r"embeddings\.mask_token$",),
    renamed=lambda name: name.removeprefix("model."),
    names=names,
    modules=lambda vit: stack(vit, "model.layer.{}"),  # since version 5 of transformers
    detect=arguments,
    finish=written,
    unread=mask_token,
    image_processor="DINOv3ViTImageProcessor",
)
