"""The weights of transformers' and open_clip's CLIP under our names."""

from __future__ import annotations

import peers
import torch
from torch import Tensor, nn

KINDS = ("weight", "bias")


def image_weights(patches: Tensor, token: Tensor, positions: Tensor, head: Tensor):
    return {
        "image.embedding.projection.weight": patches,
        "image.embedding.prefix.weight": token[None],
        "image.embedding.position.weight": positions,
        "image.head.weight": head,
    }


def randomise(model: nn.Module) -> None:
    """As :func:`peers.randomise`; the scalars, temperature and bias, keep their values."""
    scalars = {name: p for name, p in model.named_parameters() if p.dim() == 0}
    for name in scalars:
        delattr(model, name)
    peers.randomise(model)
    for name, parameter in scalars.items():
        model.register_parameter(name, parameter)


def transformers_weights(theirs: nn.Module) -> dict[str, Tensor]:
    state = theirs.state_dict()
    vision, text = "vision_model", "text_model"
    ours = {
        "logit_scale": state["logit_scale"],
        **image_weights(
            state[f"{vision}.embeddings.patch_embedding.weight"],
            state[f"{vision}.embeddings.class_embedding"],
            state[f"{vision}.embeddings.position_embedding.weight"],
            state["visual_projection.weight"],
        ),
        "text.embedding.tokens.weight": state[f"{text}.embeddings.token_embedding.weight"],
        "text.embedding.position.weight": state[f"{text}.embeddings.position_embedding.weight"],
        "text.projection.weight": state["text_projection.weight"],
    }
    blocks = {
        "self_attention.norm": ["layer_norm1"],
        "self_attention.sublayer.qkv": [f"self_attn.{n}_proj" for n in "qkv"],
        "self_attention.sublayer.out": ["self_attn.out_proj"],
        "feedforward.norm": ["layer_norm2"],
        "feedforward.sublayer.up": ["mlp.fc1"],
        "feedforward.sublayer.down": ["mlp.fc2"],
    }
    for kind in KINDS:
        ours[f"image.embedding.norm.{kind}"] = state[f"{vision}.pre_layrnorm.{kind}"]
        ours[f"image.transformer.norm.{kind}"] = state[f"{vision}.post_layernorm.{kind}"]
        ours[f"text.transformer.norm.{kind}"] = state[f"{text}.final_layer_norm.{kind}"]
        for tower, model, config in (
            ("image", vision, theirs.config.vision_config),
            ("text", text, theirs.config.text_config),
        ):
            for i in range(config.num_hidden_layers):
                for name, parts in blocks.items():
                    values = [state[f"{model}.encoder.layers.{i}.{p}.{kind}"] for p in parts]
                    ours[f"{tower}.transformer.blocks.{i}.{name}.{kind}"] = torch.cat(values)
    return ours


def open_clip_weights(theirs: nn.Module) -> dict[str, Tensor]:
    state = theirs.state_dict()
    ours = {
        "logit_scale": state["logit_scale"],
        **image_weights(
            state["visual.conv1.weight"],
            state["visual.class_embedding"],
            state["visual.positional_embedding"],
            state["visual.proj"].T,
        ),
        "text.embedding.tokens.weight": state["token_embedding.weight"],
        "text.embedding.position.weight": state["positional_embedding"],
        "text.projection.weight": state["text_projection"].T,
    }
    if "logit_bias" in state:
        ours["logit_bias"] = state["logit_bias"]
    blocks = {
        "self_attention.norm": "ln_1.{}",
        "self_attention.sublayer.qkv": "attn.in_proj_{}",
        "self_attention.sublayer.out": "attn.out_proj.{}",
        "feedforward.norm": "ln_2.{}",
        "feedforward.sublayer.up": "mlp.c_fc.{}",
        "feedforward.sublayer.down": "mlp.c_proj.{}",
    }
    for kind in KINDS:
        ours[f"image.embedding.norm.{kind}"] = state[f"visual.ln_pre.{kind}"]
        ours[f"image.transformer.norm.{kind}"] = state[f"visual.ln_post.{kind}"]
        ours[f"text.transformer.norm.{kind}"] = state[f"ln_final.{kind}"]
        for tower, stack in (("image", "visual.transformer"), ("text", "transformer")):
            depth = len(theirs.get_submodule(stack).resblocks)
            for i in range(depth):
                for name, pattern in blocks.items():
                    value = state[f"{stack}.resblocks.{i}.{pattern.format(kind)}"]
                    ours[f"{tower}.transformer.blocks.{i}.{name}.{kind}"] = value
    return ours
