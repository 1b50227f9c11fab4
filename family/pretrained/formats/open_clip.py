"""CLIP as open_clip stores it, and as OpenAI's own files have it: the same names of weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import nn

from family.models.clip import CLIP
from family.pretrained.images import to_open_clip
from family.pretrained.shared_fields import ratio, rest
from family.pretrained.table import ADDED, TRANSPOSED, Field, Format, Names, Row, blocks
from family.pretrained.weights import Weights

BLOCK: Names = {
    "self_attention.norm": "ln_1",
    "self_attention.sublayer.qkv.weight": "attn.in_proj_weight",
    "self_attention.sublayer.qkv.bias": "attn.in_proj_bias",
    "self_attention.sublayer.out": "attn.out_proj",
    "self_attention.scale": "ls_1.gamma",
    "feedforward.norm": "ln_2",
    "feedforward.sublayer.up": "mlp.c_fc",
    "feedforward.sublayer.down": "mlp.c_proj",
    "feedforward.scale": "ls_2.gamma",
}
PLAIN: dict[str, Any] = {
    "vision_cfg.attentional_pool": False,
    "vision_cfg.no_ln_pre": False,
    "vision_cfg.pos_embed_type": "learnable",
    "vision_cfg.final_ln_after_pool": False,
    "vision_cfg.pool_type": "tok",
    "vision_cfg.timm_model_name": None,
    "text_cfg.hf_model_name": None,
    "text_cfg.embed_cls": False,
    "text_cfg.no_causal_mask": False,
    "text_cfg.pool_type": "argmax",
    "text_cfg.proj_bias": False,
    "text_cfg.proj_type": "linear",
    "custom_text": False,
    "nonscalar_logit_scale": False,
}
"""The options of ``model_cfg`` that we have at one value only."""
TOWERS = ("vision_cfg", "text_cfg")
BOTH = {"act_kwargs": None, "norm_kwargs": None, "qk_norm": False, "scaled_cosine_attn": False}
BOTH |= {"scale_heads": False, "scale_attn_inner": False, "scale_attn": False, "scale_fc": False}
FIXED = {
    **{f"model_cfg.{name}": value for name, value in PLAIN.items()},
    **{f"model_cfg.{tower}.{name}": value for tower in TOWERS for name, value in BOTH.items()},
}


def describe(module: nn.Module) -> dict[str, Any]:
    """The ``model_cfg`` of a module in memory.

    Raises:
        ValueError: another class, or an option that we do not have.
    """
    for what in unsupported(module):
        raise ValueError(f"open_clip's {type(module).__name__} with {what} is not supported.")
    clip: Any = module
    visual, block = clip.visual, clip.visual.transformer.resblocks[0]
    text = clip.transformer.resblocks[0]
    return {
        "embed_dim": visual.output_dim,
        "quick_gelu": type(block.mlp.gelu).__name__ == "QuickGELU",
        "vision_cfg": {
            "image_size": list(visual.image_size),
            "patch_size": list(visual.patch_size),
            "width": block.ln_1.normalized_shape[0],
            "layers": len(visual.transformer.resblocks),
            "head_width": block.attn.head_dim,
            **feedforward(block),
        },
        "text_cfg": {
            "context_length": clip.context_length,
            "vocab_size": clip.vocab_size,
            "width": text.ln_1.normalized_shape[0],
            "layers": len(clip.transformer.resblocks),
            "heads": text.attn.num_heads,
            **feedforward(text),
        },
    }


def feedforward(block: Any) -> dict[str, Any]:
    hidden, width = block.mlp.c_fc.weight.shape
    scaled = hasattr(block.ls_1, "gamma")  # its first value is not on record
    return {"mlp_ratio": ratio(hidden, width), "ls_init_value": 1e-5 if scaled else None}


def unsupported(module: Any) -> Iterator[str]:
    """What we cannot express, in words."""
    if type(module).__name__ != "CLIP":
        yield "a text tower of its own (only the class CLIP is known)"
    visual = module.visual
    if type(visual).__name__ != "VisionTransformer":
        yield f"a {type(visual).__name__} for pictures (only its VisionTransformer is known)"
    if visual.attn_pool is not None or visual.pool_type != "tok" or visual.final_ln_after_pool:
        yield "another pooling of pictures than the class token"
    if isinstance(visual.ln_pre, nn.Identity):
        yield "no_ln_pre=True"
    if module.text_pool_type != "argmax" or module.attn_mask is None:
        yield f"text_pool_type={module.text_pool_type!r}, or no causal mask"
    if isinstance(module.text_projection, nn.Linear) or module.text_projection is None:
        yield "a bias on the projection of texts, or none at all"
    for block in (*visual.transformer.resblocks, *module.transformer.resblocks):
        if type(block).__name__ != "ResidualAttentionBlock":
            yield f"blocks of the class {type(block).__name__}"
        if getattr(block.mlp.gelu, "approximate", "none") != "none" or block.ln_1.eps != 1e-5:
            yield "act_kwargs or norm_kwargs"


def describe_state(weights: Weights) -> dict[str, Any]:
    """The ``model_cfg`` of one of OpenAI's models, from the shapes of its weights.

    Raises:
        ValueError: a model whose picture tower is no ViT.
    """
    if "visual.proj" not in weights.places:
        raise ValueError(
            f"{weights.origin}: a CLIP with a ResNet is not supported, only with a ViT."
        )

    def shape(name: str) -> tuple[int, ...]:
        return tuple(weights.read(name).shape)

    def layers(stack: str) -> int:
        return sum(n.startswith(stack) and n.endswith("ln_1.weight") for n in weights.places)

    width, _, patch, _ = shape("visual.conv1.weight")
    side = round((shape("visual.positional_embedding")[0] - 1) ** 0.5)
    vocab, text_width = shape("token_embedding.weight")
    return {
        "embed_dim": shape("text_projection")[1],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": side * patch,
            "patch_size": patch,
            "width": width,
            "layers": layers("visual.transformer."),
        },
        "text_cfg": {
            "context_length": shape("positional_embedding")[0],
            "vocab_size": vocab,
            "width": text_width,
            "layers": layers("transformer."),
            "heads": text_width // 64,
        },
    }


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    options = config["model_cfg"]
    image, text = options.get("vision_cfg", {}), options.get("text_cfg", {})
    if not isinstance(image.get("layers", 12), int):
        raise ValueError(f"vision_cfg.layers={image['layers']}, a ResNet, is not supported.")
    width, text_width = image.get("width", 768), text.get("width", 512)
    return {
        "image.heads": width // image.get("head_width", 64),
        "image.ffn_dim": int(width * image.get("mlp_ratio", 4.0)),
        "text.ffn_dim": int(text_width * text.get("mlp_ratio", 4.0)),
        "pooling.eos_id": text.get("vocab_size", 49_408)
        - 1,  # they read the highest number of a text
        "logit_bias": "logit_bias" in names,
        **rest(image.get("image_size", 224), image.get("patch_size", 16)),
    }


def original_arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """OpenAI's code takes heads of 64 channels, and squares."""
    found, text = arguments(config, names), config["model_cfg"]["text_cfg"]
    size = config["model_cfg"]["vision_cfg"]["image_size"]
    if isinstance(size, list | tuple) and size[0] != size[1]:
        raise ValueError(f"vision_cfg.image_size={size} is not supported; only squares are.")
    return {**found, "text.heads": text["width"] // 64}


def written(clip: Any, config: dict[str, Any]) -> dict[str, Any]:
    options = config["model_cfg"]
    image, text = clip.image.config, clip.text.config
    vision = {"head_width": image.head_dim, "mlp_ratio": ratio(image.ffn_dim, image.dim)}
    options = {
        **options,
        "vision_cfg": {**options["vision_cfg"], **vision},
        "text_cfg": {**options["text_cfg"], "mlp_ratio": ratio(text.ffn_dim, text.dim)},
        **({} if clip.logit_bias is None else {"init_logit_bias": -10}),
    }
    preprocess: Any = getattr(clip, "preprocess", None)
    pictures = {} if preprocess is None else to_open_clip(preprocess)
    return {"model_cfg": options, "preprocess_cfg": pictures}


GELU = {True: "quick_gelu", False: "gelu"}
FORMAT = Format(
    name="open_clip",
    member=CLIP,
    model_types=(),
    architectures=(),
    fields=(
        Field("embed_dim", "model_cfg.embed_dim"),
        Field("image.activation", "model_cfg.quick_gelu", False, GELU),
        Field("text.activation", "model_cfg.quick_gelu", False, GELU),
        Field("image_size", "model_cfg.vision_cfg.image_size", 224),
        Field("patch_size", "model_cfg.vision_cfg.patch_size", 16),
        Field("image.dim", "model_cfg.vision_cfg.width", 768),
        Field("image.depth", "model_cfg.vision_cfg.layers", 12),
        Field("image.layer_scale", "model_cfg.vision_cfg.ls_init_value", None),
        Field("vocab_size", "model_cfg.text_cfg.vocab_size", 49_408),
        Field("text.max_tokens", "model_cfg.text_cfg.context_length", 77),
        Field("text.dim", "model_cfg.text_cfg.width", 512),
        Field("text.depth", "model_cfg.text_cfg.layers", 12),
        Field("text.heads", "model_cfg.text_cfg.heads", 8),
        Field("text.layer_scale", "model_cfg.text_cfg.ls_init_value", None),
    ),
    constants={"image.position": "learned", "text.position": "learned", "text.causal": True},
    fixed=FIXED,
    names={
        "image.embedding.projection": "visual.conv1",
        "image.embedding.prefix.weight": Row(("visual.class_embedding",), ADDED),
        "image.embedding.position.weight": "visual.positional_embedding",
        "image.embedding.norm": "visual.ln_pre",
        "image.transformer.norm": "visual.ln_post",
        "image.head.weight": Row(("visual.proj",), TRANSPOSED),
        **blocks("image.transformer", "visual.transformer.resblocks.{}", BLOCK),
        "text.embedding.tokens": "token_embedding",
        "text.embedding.position.weight": "positional_embedding",
        "text.transformer.norm": "ln_final",
        "text.projection.weight": Row(("text_projection",), TRANSPOSED),
        **blocks("text.transformer", "transformer.resblocks.{}", BLOCK),
        "logit_scale": "logit_scale",
        "logit_bias": "logit_bias",
    },
    detect=arguments,
    finish=written,
    files=("open_clip_config.json", "open_clip_model.safetensors"),
)
ORIGINAL = dataclasses.replace(
    FORMAT,
    name="openai_clip",
    fixed={
        **FIXED,
        "model_cfg.quick_gelu": True,
        "model_cfg.vision_cfg.head_width": 64,
        "model_cfg.vision_cfg.mlp_ratio": 4.0,
        "model_cfg.text_cfg.mlp_ratio": 4.0,
    },
    ignored=("^(input_resolution|context_length|vocab_size)$",),
    detect=original_arguments,
    files=("", "model.pt"),
)
"""A state of weights by itself; all the rest is in their shapes, or the same for all."""
