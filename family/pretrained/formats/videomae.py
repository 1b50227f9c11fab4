"""VideoMAE (Tong et al. 2022), as transformers and the hub store it.

Of the files of pre-training, the encoder alone is read: a decoder of pixels has no place with us.
"""

from __future__ import annotations

from typing import Any

from family.models.video import VideoViT
from family.pretrained.formats.vit import BLOCK
from family.pretrained.shared_fields import ACTIVATIONS, count_labels, label_fields
from family.pretrained.table import Field, Format, Names, blocks

NORM = "fc_norm.weight"
BIASES: Names = {
    "self_attention.sublayer.query_bias": "attention.attention.q_bias",
    "self_attention.sublayer.value_bias": "attention.attention.v_bias",
}
NAMES: Names = {
    "embedding.projection": "videomae.embeddings.patch_embeddings.projection",
    "transformer.norm": "videomae.layernorm",
    "pool.norm": "fc_norm",
    "head": "classifier",
    **blocks("transformer", "videomae.encoder.layer.{}", {**BLOCK, **BIASES}),
}


def renamed(name: str) -> str:
    """transformers 5 has the biases in its layers of queries and values, files still beside them."""
    return name.replace(".query.bias", ".q_bias").replace(".value.bias", ".v_bias")


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The norm after pooling comes with the classes, the other one only where nothing is averaged."""
    classes, mean = "classifier.weight" in names, config.get("use_mean_pooling", True)
    return {
        "num_classes": count_labels(config) if classes else 0,
        "config.final_norm": not mean or NORM in names,
        # What version 4 called it wins there, too.
        "config.qkv_bias": config.get("qkv_bias", config.get("qv_bias", True)),
    }


def written(model: VideoViT, config: dict[str, Any]) -> dict[str, Any]:
    classes, mean = bool(model.num_classes), config["use_mean_pooling"]
    if mean and classes != bool(model.config.final_norm):
        raise ValueError(
            "format='videomae' has a norm after pooling where there are classes, and only there; this "
            f"model has num_classes={model.num_classes} and final_norm={model.config.final_norm}."
        )
    kind = "VideoMAEForVideoClassification" if classes else "VideoMAEModel"
    biased = bool(model.config.qkv_bias)
    return {"architectures": [kind], "qv_bias": biased, **label_fields(model, model.num_classes)}


FORMAT = Format(
    name="videomae",
    member=VideoViT,
    model_types=("videomae",),
    architectures=("VideoMAEForVideoClassification", "VideoMAEModel", "VideoMAEForPreTraining"),
    fields=(
        Field("config.dim", "hidden_size", 768),
        Field("config.depth", "num_hidden_layers", 12),
        Field("config.heads", "num_attention_heads", 12),
        Field("config.ffn_dim", "intermediate_size", 3072),
        Field("config.activation", "hidden_act", "gelu", ACTIVATIONS),
        Field("config.norm_eps", "layer_norm_eps", 1e-12),
        Field("config.dropout", "hidden_dropout_prob", 0.0),
        Field("config.attention_dropout", "attention_probs_dropout_prob", 0.0),
        Field("frames", "num_frames", 16),
        Field("tubelet_size", "tubelet_size", 2),
        Field("image_size", "image_size", 224),
        Field("patch_size", "patch_size", 16),
        Field("channels", "num_channels", 3),
        Field("pool", "use_mean_pooling", True, {True: "mean", False: "class"}),
    ),
    constants={"config.position": "sinusoidal", "config.key_bias": False},
    prefix="videomae.",
    ignored=(r"^decoder\.", r"^encoder_to_decoder\.", r"^mask_token$"),
    renamed=renamed,
    names=NAMES,
    detect=arguments,
    finish=written,
    image_processor="VideoMAEImageProcessor",
)
