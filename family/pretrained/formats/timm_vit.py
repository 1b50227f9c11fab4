"""timm's VisionTransformer: ViT, DeiT, DINOv2, and the picture towers of CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from timm.layers import Attention, AttentionPoolLatent, GluMlp, Mlp, PatchEmbed, RmsNorm
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from family.models.vit import ViT
from family.pretrained.images import to_timm
from family.pretrained.shared_fields import ratio, rest
from family.pretrained.table import FIRST, Field, Format, Names, Reshape, Row, blocks

ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}
ACTIVATIONS |= {"SiLU": "silu", "ReLU": "relu"}
"""timm's classes -> its names, which are ours."""
POOLS = {"token": "class", "avg": "mean", "map": "attention"}
NOT = {True: False, False: True}
QUERY = Reshape(lambda x, _: x[0, 0], lambda x, _: x[None, None])
BLOCK: Names = {
    "self_attention.norm": "norm1",
    "self_attention.sublayer.qkv": "attn.qkv",
    "self_attention.sublayer.query_norm": "attn.q_norm",
    "self_attention.sublayer.key_norm": "attn.k_norm",
    "self_attention.sublayer.out": "attn.proj",
    "self_attention.scale": "ls1.gamma",
    "feedforward.norm": "norm2",
    "feedforward.sublayer.up": "mlp.fc1",
    "feedforward.sublayer.down": "mlp.fc2",
    "feedforward.scale": "ls2.gamma",
}


def prefix(vit: Any, names: tuple[str, str, str]) -> Row:
    """Where our table of prefix tokens stands: class, distillation and register tokens.

    Args:
        names: theirs, of these three.
    """
    patches, distilled = vit.arguments["patches"], vit.arguments["distilled"]
    counts = patches.class_token, distilled, patches.register_tokens
    kept = [(name, int(n)) for name, n in zip(names, counts, strict=True) if n]
    return Row(tuple(n for n, _ in kept), FIRST, tuple(count for _, count in kept))


def names(vit: ViT) -> Names:
    return {
        "embedding.projection": "patch_embed.proj",
        "embedding.norm": "norm_pre",
        "embedding.prefix.weight": prefix(vit, ("cls_token", "dist_token", "reg_token")),
        "embedding.position.weight": Row(("pos_embed",), FIRST),
        "transformer.norm": "norm",
        "pool.norm": "fc_norm",
        "pool.attention.query": Row(("attn_pool.latent",), QUERY),
        "pool.attention.attention.query": "attn_pool.q",
        "pool.attention.attention.key_value": "attn_pool.kv",
        "pool.attention.attention.out": "attn_pool.proj",
        "pool.attention.feedforward.norm": "attn_pool.norm",
        "pool.attention.feedforward.sublayer.up": "attn_pool.mlp.fc1",
        "pool.attention.feedforward.sublayer.down": "attn_pool.mlp.fc2",
        "head": "head",
        "distilled_head": "head_dist",
        **blocks("transformer", "blocks.{}", BLOCK),
    }


def describe(module: nn.Module) -> dict[str, Any]:
    """The config of a module in memory: the arguments that it was built from, and what they hide.

    Raises:
        ValueError: another class, or an option that we do not have.
    """
    for what in unsupported(module):
        raise ValueError(f"timm's {type(module).__name__} with {what} is not supported.")
    vit: Any = module
    block, patches = vit.blocks[0], vit.patch_embed
    arguments = {
        "img_size": list(patches.img_size),
        "patch_size": list(patches.patch_size),
        "in_chans": patches.proj.in_channels,
        "num_classes": vit.num_classes,
        "global_pool": vit.global_pool,
        "embed_dim": vit.embed_dim,
        "depth": len(vit.blocks),
        "num_heads": block.attn.num_heads,
        "mlp_ratio": ratio(block.mlp.fc1.out_features, vit.embed_dim),
        "qkv_bias": block.attn.qkv.bias is not None,
        "proj_bias": block.attn.proj.bias is not None,
        "qk_norm": present(block.attn.q_norm),
        "init_values": getattr(block.ls1, "init_values", None),
        "class_token": vit.has_class_token,
        "reg_tokens": vit.num_reg_tokens,
        "pos_embed": "none" if vit.pos_embed is None else "learn",
        "no_embed_class": vit.no_embed_class,
        "pre_norm": present(vit.norm_pre),
        "final_norm": present(vit.norm) or present(vit.fc_norm),
        "fc_norm": present(vit.fc_norm),
        "act_layer": activation(block.mlp.act),
    }
    return {
        "model_args": arguments,
        "norm": "rmsnorm" if isinstance(block.norm1, RmsNorm) else "layernorm",
        "norm_eps": block.norm1.eps,
        "gated": isinstance(block.mlp, GluMlp),
        "distilled": isinstance(vit, VisionTransformerDistilled),
    }


def unsupported(module: Any) -> Iterator[str]:
    """What we cannot express, in words."""
    if type(module) not in (VisionTransformer, VisionTransformerDistilled):
        yield "its own blocks (only VisionTransformer and VisionTransformerDistilled are known)"
    if not len(module.blocks):
        yield "depth=0"
    patches, pool = module.patch_embed, module.attn_pool
    if type(patches) is not PatchEmbed or present(patches.norm) or patches.dynamic_img_pad:
        yield "an embedding other than patches, norms on it, or padding of pictures"
    if module.global_pool not in POOLS:
        yield f"global_pool={module.global_pool!r}"
    if module.pool_include_prefix:
        yield "pool_include_prefix=True"
    if pool is not None and (type(pool) is not AttentionPoolLatent or pool.latent_len != 1):
        yield "an attention pooling other than one latent query"
    for block in module.blocks:
        attention: Any = block.attn
        mlp: Any = getattr(block, "mlp", None)
        if type(block) is not Block or type(attention) is not Attention:
            yield "other blocks (block_fn or attn_layer)"
        if type(mlp) not in (Mlp, GluMlp) or getattr(mlp, "gate_last", False):
            yield "another feed-forward (mlp_layer)"
        if present(attention.norm) or present(mlp.norm) or attention.gate is not None:
            yield "scale_attn_norm, scale_mlp_norm or gated attention"
        for norm in (attention.q_norm, attention.k_norm):
            if present(norm) and (type(norm), norm.eps) != (type(block.norm1), block.norm1.eps):
                yield f"qk_norm by another norm than the block's ({type(norm).__name__})"
        if not isinstance(block.norm1, nn.LayerNorm | RmsNorm):
            yield f"norm_layer={type(block.norm1).__name__}"
        if not activation(mlp.act):
            yield f"act_layer={type(mlp.act).__name__}"


def present(module: nn.Module) -> bool:
    return not isinstance(module, nn.Identity)


def activation(module: Any) -> str:
    """The name of an activation; "" of one that we do not have."""
    if getattr(module, "approximate", "none") == "tanh":
        return "gelu_tanh"
    return ACTIVATIONS.get(type(module).__name__, "")


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    options = config["model_args"]
    hidden = int(options["embed_dim"] * options["mlp_ratio"])
    return {
        "config.ffn_dim": hidden // 2 if config["gated"] else hidden,
        "config.qk_norm": config["norm"] if options["qk_norm"] else None,
        **rest(options["img_size"], options["patch_size"]),
    }


def written(vit: ViT, config: dict[str, Any]) -> dict[str, Any]:
    """What timm needs beside the table: an architecture whose code hides no other options."""
    stack, options = vit.config, config["model_args"]
    assert stack.ffn_dim is not None
    hidden = 2 * stack.ffn_dim if stack.gated else stack.ffn_dim
    options = {**options, "mlp_ratio": ratio(hidden, stack.dim), "img_size": list(vit.image_size)}
    options["qk_norm"] = stack.qk_norm is not None  # of the kind that all norms are
    if stack.norm == "rmsnorm":
        options["norm_layer"] = "rmsnorm"
    pretrained = {
        "fixed_input_size": True,
        "num_classes": vit.num_classes,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    preprocess: Any = getattr(vit, "preprocess", None)
    size = {"input_size": [vit.embedding.channels, *vit.image_size]}
    size |= {} if preprocess is None else to_timm(preprocess, vit.embedding.channels)
    labels: Any = getattr(vit, "labels", None)
    return {
        "architecture": architecture(vit),
        "num_classes": vit.num_classes,
        "num_features": stack.dim,
        "global_pool": options["global_pool"],
        "model_args": options,
        "pretrained_cfg": {**pretrained, **size},
        **({} if labels is None else {"label_names": labels}),
    }


def architecture(vit: ViT) -> str:
    """A function of timm's by what its options cannot say: the feed-forward and the norms' epsilon.

    Raises:
        ValueError: there is none.
    """
    known = {
        (True, False, 1e-6): "deit_tiny_distilled_patch16_224",
        (False, True, 1e-6): "vit_giant_patch14_dinov2",
        (False, False, 1e-6): "vit_base_patch16_224",
        (False, False, 1e-5): "vit_base_patch16_clip_224",
    }
    distilled, stack = vit.distilled_head is not None, vit.config
    found = known.get((distilled, stack.gated, stack.norm_eps))
    if found is None or (stack.norm == "rmsnorm" and stack.norm_eps != 1e-6):
        raise ValueError(
            f"format='timm' cannot express distilled={distilled} and gated={stack.gated} with "
            f"{stack.norm} of norm_eps={stack.norm_eps}; of norms it knows 1e-6, and of plain layer "
            "norms 1e-5."
        )
    return found


FORMAT = Format(
    name="timm",
    member=ViT,
    model_types=(),
    architectures=(),
    fields=(
        Field("image_size", "model_args.img_size"),
        Field("patch_size", "model_args.patch_size"),
        Field("patches.channels", "model_args.in_chans"),
        Field("num_classes", "model_args.num_classes"),
        Field("pooling.kind", "model_args.global_pool", values=POOLS),
        Field("config.dim", "model_args.embed_dim"),
        Field("config.depth", "model_args.depth"),
        Field("config.heads", "model_args.num_heads"),
        Field("config.qkv_bias", "model_args.qkv_bias"),
        Field("config.bias", "model_args.proj_bias"),
        Field("config.layer_scale", "model_args.init_values"),
        Field("patches.class_token", "model_args.class_token"),
        Field("patches.register_tokens", "model_args.reg_tokens"),
        Field(
            "config.position", "model_args.pos_embed", values={"learn": "learned", "none": "none"}
        ),
        Field("patches.prefix_positions", "model_args.no_embed_class", values=NOT),
        Field("patches.norm", "model_args.pre_norm"),
        Field("patches.bias", "model_args.pre_norm", values=NOT),
        Field("config.final_norm", "model_args.final_norm"),
        Field("pooling.norm_after", "model_args.fc_norm"),
        Field(
            "config.activation", "model_args.act_layer", values={n: n for n in ACTIVATIONS.values()}
        ),
        Field("config.norm", "norm", values={n: n for n in ("layernorm", "rmsnorm")}),
        Field("config.norm_eps", "norm_eps"),
        Field("config.gated", "gated"),
        Field("distilled", "distilled"),
    ),
    names=names,
    detect=arguments,
    finish=written,
)
