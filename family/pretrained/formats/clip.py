"""CLIP (Radford et al. 2021), SigLIP (Zhai et al. 2023) and SigLIP 2 for pictures of one size, as
transformers and the hub store them."""

from __future__ import annotations

from typing import Any

from family.models.clip import CLIP
from family.pretrained.configs import MISSING
from family.pretrained.shared_fields import ACTIVATIONS, rest
from family.pretrained.table import ADDED, FIRST, Field, Format, Names, Reshape, Row, blocks

BLOCK: Names = {
    "self_attention.norm": "layer_norm1",
    "self_attention.sublayer.qkv": tuple(f"self_attn.{part}_proj" for part in "qkv"),
    "self_attention.sublayer.out": "self_attn.out_proj",
    "feedforward.norm": "layer_norm2",
    "feedforward.sublayer.up": "mlp.fc1",
    "feedforward.sublayer.down": "mlp.fc2",
}
TOWERS: Names = {
    "image.embedding.projection": "vision_model.embeddings.patch_embedding",
    "image.embedding.position": "vision_model.embeddings.position_embedding",
    "image.transformer.norm": "vision_model.post_layernorm",
    **blocks("image.transformer", "vision_model.encoder.layers.{}", BLOCK),
    "text.embedding.tokens": "text_model.embeddings.token_embedding",
    "text.embedding.position": "text_model.embeddings.position_embedding",
    "text.transformer.norm": "text_model.final_layer_norm",
    **blocks("text.transformer", "text_model.encoder.layers.{}", BLOCK),
}
POSITION_IDS = r"embeddings\.position_ids$"
"""A buffer that older files hold."""
PROBE = Reshape(lambda x, _: x[0, 0], lambda x, _: x[None, None])
EOS_ID = 49_407
"""The end of a text in OpenAI's vocabulary."""
GEMMA = 256_000
"""The size of Gemma's vocabulary, which SigLIP 2 has (Tschannen et al. 2025)."""


def tower(ours: str, theirs: str, dims: tuple[int, int, int], activation: str, eps: float) -> Any:
    """The fields of a tower.

    Args:
        dims: defaults: width, feed-forward and heads.
    """
    return (
        Field(f"{ours}.dim", f"{theirs}.hidden_size", dims[0]),
        Field(f"{ours}.ffn_dim", f"{theirs}.intermediate_size", dims[1]),
        Field(f"{ours}.heads", f"{theirs}.num_attention_heads", dims[2]),
        Field(f"{ours}.depth", f"{theirs}.num_hidden_layers", 12),
        Field(f"{ours}.activation", f"{theirs}.hidden_act", activation, ACTIVATIONS),
        Field(f"{ours}.norm_eps", f"{theirs}.layer_norm_eps", eps),
        Field(f"{ours}.attention_dropout", f"{theirs}.attention_dropout", 0.0),
    )


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Where a text ends; the first configs say 2, and mean the highest number of the vocabulary.

    Raises:
        ValueError: it ends nowhere, or the config says two things of a tower.
    """
    for name in ("text_config", "vision_config"):
        inner, other = config.get(name) or {}, config.get(f"{name}_dict") or {}
        fields = {one.theirs.removeprefix(f"{name}.") for one in FORMAT.fields}
        for field in sorted(fields & other.keys()):
            if inner.get(field, MISSING) != other[field]:
                raise ValueError(f"{name} and {name}_dict have different values of {field}.")
    text = config.get("text_config") or {}
    eos = text.get("eos_token_id", EOS_ID)
    if not isinstance(eos, int):
        raise ValueError(f"text_config.eos_token_id={eos!r} is not supported; one number is.")
    return {
        "pooling.eos_id": text.get("vocab_size", EOS_ID + 1) - 1 if eos == 2 else eos,
        **patch_rest(config, 32),
    }


def patch_rest(config: dict[str, Any], patch_size: int) -> dict[str, bool]:
    image = config.get("vision_config") or {}
    return rest(image.get("image_size", 224), image.get("patch_size", patch_size))


FORMAT = Format(
    name="clip",
    member=CLIP,
    model_types=("clip",),
    architectures=("CLIPModel",),
    fields=(
        *tower("image", "vision_config", (768, 3072, 12), "quick_gelu", 1e-5),
        *tower("text", "text_config", (512, 2048, 8), "quick_gelu", 1e-5),
        Field("image_size", "vision_config.image_size", 224),
        Field("patch_size", "vision_config.patch_size", 32),
        Field("vocab_size", "text_config.vocab_size", EOS_ID + 1),
        Field("text.max_tokens", "text_config.max_position_embeddings", 77),
        Field("pooling.eos_id", "text_config.eos_token_id", EOS_ID),
        Field("embed_dim", "projection_dim", 512),
    ),
    constants={
        "image.position": "learned",
        "text.position": "learned",
        "text.causal": True,
        "patches.interpolation": "bicubic",
    },
    fixed={"vision_config.num_channels": 3},
    ignored=(POSITION_IDS,),
    names={
        **TOWERS,
        "image.embedding.prefix.weight": Row(("vision_model.embeddings.class_embedding",), ADDED),
        "image.embedding.norm": "vision_model.pre_layrnorm",
        "image.head": "visual_projection",
        "text.projection": "text_projection",
        "logit_scale": "logit_scale",
    },
    detect=arguments,
    image_processor="CLIPImageProcessor",
)


def siglip_arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    text = config.get("text_config") or {}
    width = text.get("projection_size") or text.get("hidden_size", 768)
    padding = text.get("pad_token_id", 1)
    if text.get("vocab_size") == GEMMA and padding in (1, None):
        # Padded with 0: its 1 ends a text, and is in configs as what SigLIP's say by default.
        padding = 0
    return {"pooling.fill_id": padding, "embed_dim": width, **patch_rest(config, 16)}


SIGLIP = Format(
    name="siglip",
    member=CLIP,
    model_types=("siglip",),
    architectures=("SiglipModel",),
    fields=(
        *tower("image", "vision_config", (768, 3072, 12), "gelu_pytorch_tanh", 1e-6),
        *tower("text", "text_config", (768, 3072, 12), "gelu_pytorch_tanh", 1e-6),
        Field("image_size", "vision_config.image_size", 224),
        Field("patch_size", "vision_config.patch_size", 16),
        Field("vocab_size", "text_config.vocab_size", 32_000),
        Field("text.max_tokens", "text_config.max_position_embeddings", 64),
        Field("pooling.fill_id", "text_config.pad_token_id", 1),
        Field("embed_dim", "text_config.projection_size", None),
    ),
    constants={
        "image.position": "learned",
        "text.position": "learned",
        "patches.class_token": False,
        "patches.norm": False,
        "patches.bias": True,
        "patches.interpolation": "bicubic",
        "pooling.image": "attention",
        "pooling.image_projection": False,
        "pooling.text_projection_bias": True,
        "logit_bias": True,
    },
    fixed={"vision_config.num_channels": 3, "vision_config.vision_use_head": True},
    ignored=(POSITION_IDS,),
    names={
        **TOWERS,
        "image.pool.attention.query": Row(("vision_model.head.probe",), PROBE),
        **{
            f"image.pool.attention.attention.{part}.{kind}": Row(
                (f"vision_model.head.attention.in_proj_{kind}",), share=share
            )
            for part, share in (("query", (0, 1, 3)), ("key_value", (1, 3, 3)))
            for kind in ("weight", "bias")
        },
        "image.pool.attention.attention.out": "vision_model.head.attention.out_proj",
        "image.pool.attention.feedforward.norm": "vision_model.head.layernorm",
        "image.pool.attention.feedforward.sublayer.up": "vision_model.head.mlp.fc1",
        "image.pool.attention.feedforward.sublayer.down": "vision_model.head.mlp.fc2",
        "text.projection": "text_model.head",
        "logit_scale": Row(("logit_scale",), FIRST),
        "logit_bias": Row(("logit_bias",), FIRST),
    },
    detect=siglip_arguments,
    image_processor="SiglipImageProcessor",
)
