"""ViLT (Kim et al. 2021), as transformers and the hub store it.

Theirs puts patches into the stack in a random order, and where ``max_image_length`` is over 0 draws
some of them; ours keeps all, in their own order, which changes nothing in any other token.
"""

from __future__ import annotations

from typing import Any

from family.models.fusion import Fusion
from family.pretrained.formats.vit import BLOCK
from family.pretrained.shared_fields import ACTIVATIONS, count_labels, label_fields, rest
from family.pretrained.table import FIRST, Field, Format, Names, Row, blocks

WORDS = "vilt.embeddings.text_embeddings"
CLASSES = "classifier.3.weight"
NAMES: Names = {
    "words.tokens": f"{WORDS}.word_embeddings",
    "words.position": f"{WORDS}.position_embeddings",
    "words.token_types": f"{WORDS}.token_type_embeddings",
    "words.norm": f"{WORDS}.LayerNorm",
    "patches.projection": "vilt.embeddings.patch_embeddings.projection",
    "patches.prefix.weight": Row(("vilt.embeddings.cls_token",), FIRST),
    "patches.position.weight": Row(("vilt.embeddings.position_embeddings",), FIRST),
    "kinds": "vilt.embeddings.token_type_embeddings",
    "transformer.norm": "vilt.layernorm",
    **blocks("transformer", "vilt.encoder.layer.{}", BLOCK),
    "pooler.dense": "vilt.pooler.dense",
    **{f"head.{i}": f"classifier.{i}" for i in (0, 1, 3)},
}


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    pooled = any(name.endswith("pooler.dense.weight") for name in names)
    return {
        **rest(config.get("image_size", 384), config.get("patch_size", 32)),
        "num_classes": count_labels(config) if CLASSES in names else 0,
        "pooler": "tanh" if pooled else None,
    }


def written(model: Fusion, config: dict[str, Any]) -> dict[str, Any]:
    if model.num_classes and model.pooler is None:
        raise ValueError("format='vilt' cannot express classes without a pooler.")
    for name, sides in (("image_size", model.image_size), ("patch_size", model.patch_size)):
        if sides[0] != sides[1]:
            raise ValueError(f"format='vilt' knows squares alone, not {name}={sides}.")
    if not config["type_vocab_size"]:
        raise ValueError("format='vilt' cannot express token_types=0.")
    kind = "ViltForQuestionAnswering" if model.num_classes else "ViltModel"
    return {"architectures": [kind], **label_fields(model, model.num_classes)}


FORMAT = Format(
    name="vilt",
    member=Fusion,
    model_types=("vilt",),
    architectures=("ViltForQuestionAnswering", "ViltModel"),
    fields=(
        Field("vocab_size", "vocab_size", 30_522),
        Field("token_types", "type_vocab_size", 2),
        Field("config.max_tokens", "max_position_embeddings", 40),
        Field("config.dim", "hidden_size", 768),
        Field("config.depth", "num_hidden_layers", 12),
        Field("config.heads", "num_attention_heads", 12),
        Field("config.ffn_dim", "intermediate_size", 3072),
        Field("config.activation", "hidden_act", "gelu", ACTIVATIONS),
        Field("config.norm_eps", "layer_norm_eps", 1e-12),
        Field("config.qkv_bias", "qkv_bias", True),
        Field("config.dropout", "hidden_dropout_prob", 0.0),
        Field("config.attention_dropout", "attention_probs_dropout_prob", 0.0),
        Field("image_size", "image_size", 384),
        Field("patch_size", "patch_size", 32),
        Field("patches.channels", "num_channels", 3),
    ),
    constants={"config.position": "learned", "patches.interpolation": "aligned"},
    fixed={"max_image_length": -1, "modality_type_vocab_size": 2},
    prefix="vilt.",
    ignored=(r"embeddings\.position_ids$",),
    names=NAMES,
    detect=arguments,
    finish=written,
    image_processor="ViltImageProcessor",
)
