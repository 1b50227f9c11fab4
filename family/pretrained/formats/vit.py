"""ViT (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021), as transformers and the hub store
them."""

from __future__ import annotations

import dataclasses
from typing import Any

from family.models.vit import ViT
from family.pretrained.formats.timm_vit import prefix
from family.pretrained.shared_fields import ACTIVATIONS, count_labels, label_fields, rest
from family.pretrained.table import FIRST, Field, Format, Names, Row, blocks

ATTENTION: Names = {
    "self_attention.sublayer.qkv": tuple(
        f"attention.attention.{part}" for part in ("query", "key", "value")
    ),
    "self_attention.sublayer.out": "attention.output.dense",
}
"""Of DINOv2's blocks too."""
BLOCK: Names = {
    **ATTENTION,
    "self_attention.norm": "layernorm_before",
    "feedforward.norm": "layernorm_after",
    "feedforward.sublayer.up": "intermediate.dense",
    "feedforward.sublayer.down": "output.dense",
}
ATTENTION_MODULES: Names = {
    "self_attention.sublayer.qkv": tuple(f"attention.{part}_proj" for part in "qkv"),
    "self_attention.sublayer.out": "attention.o_proj",
}
MODULES: Names = {
    **ATTENTION_MODULES,
    "feedforward.sublayer.up": "mlp.fc1",
    "feedforward.sublayer.down": "mlp.fc2",
}
"""What version 5 of transformers calls them in memory."""
FIELDS = (
    Field("config.dim", "hidden_size"),
    Field("config.depth", "num_hidden_layers"),
    Field("config.heads", "num_attention_heads"),
    Field("config.activation", "hidden_act", "gelu", ACTIVATIONS),
    Field("config.qkv_bias", "qkv_bias", True),
    Field("config.dropout", "hidden_dropout_prob", 0.0),
    Field("config.attention_dropout", "attention_probs_dropout_prob", 0.0),
    Field("image_size", "image_size", 224),
    Field("patches.channels", "num_channels", 3),
)
"""Of DINOv2 too."""


def stack(vit: ViT, beginning: str, tokens: tuple[str, str, str], block: Names) -> Names:
    """The names of embedding and blocks.

    Args:
        tokens: names of class, distillation and register tokens.
    """
    table = Row((f"{beginning}embeddings.position_embeddings",), FIRST)
    places = [f"{beginning}embeddings.{token}" for token in tokens]
    return {
        "embedding.projection": f"{beginning}embeddings.patch_embeddings.projection",
        "embedding.prefix.weight": prefix(vit, (places[0], places[1], places[2])),
        "embedding.position.weight": table,
        "transformer.norm": f"{beginning}layernorm",
        **blocks("transformer", f"{beginning}encoder.layer.{{}}", block),
    }


def names(vit: ViT) -> Names:
    tokens = ("cls_token", "distillation_token", "distillation_token")
    return {
        **stack(vit, "vit.", tokens, BLOCK),
        "pooler.dense": "vit.pooler.dense",
        "head": "classifier",
    }


def deit_names(vit: ViT) -> Names:
    tokens = ("cls_token", "distillation_token", "distillation_token")
    return {
        **stack(vit, "deit.", tokens, BLOCK),
        "pooler.dense": "deit.pooler.dense",
        "head": "classifier" if vit.distilled_head is None else "cls_classifier",
        "distilled_head": "distillation_classifier",
    }


def heads(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Pooler and classes, of which the weights tell whether they are there."""
    pooled = any(name.endswith("pooler.dense.weight") for name in names)
    width = config.get("pooler_output_size")
    if pooled and width not in (None, config["hidden_size"]):
        raise ValueError(f"pooler_output_size={width} is not supported; only hidden_size is.")
    classes = any(name.endswith("classifier.weight") for name in names)
    return {
        **rest(config.get("image_size", 224), config.get("patch_size", 16)),
        "pooling.pooler": config.get("pooler_act", "tanh") if pooled else None,
        "num_classes": count_labels(config) if classes else 0,
    }


def deit_heads(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    distilled = "distillation_classifier.weight" in names
    tokens = {"distilled": distilled, "patches.register_tokens": 0 if distilled else 1}
    return {**heads(config, names), **tokens}


def kind(vit: ViT, model: str) -> str:
    """The class of transformers for a model; none has both pooler and classes.

    Raises:
        ValueError: it has both.
    """
    if vit.num_classes and vit.pooler is not None:
        raise ValueError(f"transformers' {model} has no classes behind a pooler.")
    if not vit.num_classes:
        return f"{model}Model"
    teacher = "" if vit.distilled_head is None else "WithTeacher"
    return f"{model}ForImageClassification{teacher}"


def written(vit: Any, config: dict[str, Any]) -> dict[str, Any]:
    model = "ViT" if config["model_type"] == "vit" else "DeiT"
    pooler = vit.pooling.pooler
    return {
        "architectures": [kind(vit, model)],
        **({} if pooler is None else {"pooler_act": pooler}),
        **label_fields(vit, vit.num_classes),
    }


FORMAT = Format(
    name="vit",
    member=ViT,
    model_types=("vit",),
    architectures=("ViTForImageClassification", "ViTModel"),
    fields=(
        *FIELDS,
        Field("config.ffn_dim", "intermediate_size"),
        Field("config.norm_eps", "layer_norm_eps", 1e-12),
        Field("patch_size", "patch_size", 16),
    ),
    constants={
        "config.position": "learned",
        "patches.interpolation": "bicubic",
        "pooling.norm_after": False,
    },
    prefix="vit.",
    names=names,
    modules=lambda vit: blocks("transformer", "vit.layers.{}", MODULES),
    new_classes={"pooling.pooler": None},
    detect=heads,
    finish=written,
    image_processor="ViTImageProcessor",
)
DEIT = dataclasses.replace(
    FORMAT,
    name="deit",
    model_types=("deit",),
    architectures=(
        "DeiTForImageClassification",
        "DeiTForImageClassificationWithTeacher",
        "DeiTModel",
    ),
    prefix="deit.",
    names=deit_names,
    modules=lambda vit: blocks("transformer", "deit.layers.{}", MODULES),
    new_classes={"pooling.pooler": None},
    detect=deit_heads,
    image_processor="DeiTImageProcessor",
)
