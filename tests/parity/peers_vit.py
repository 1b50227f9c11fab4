"""Copy the weights of timm's and transformers' ViT into ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rename(
    state: dict[str, Tensor], names: dict[str, str | list[str]], depth: int
) -> dict[str, Tensor]:
    """Ours from theirs: ``{}`` counts blocks, several of theirs are joined row by row."""
    ours = {}
    for our_name, their_names in names.items():
        parts = [their_names] if isinstance(their_names, str) else their_names
        for i in range(depth if "{}" in our_name else 1):
            for kind in ("", ".weight", ".bias"):
                keys = [part.format(i) + kind for part in parts]
                if keys[0] in state:
                    ours[our_name.format(i) + kind] = torch.cat([state[key] for key in keys])
    return ours


TIMM = {
    "embedding.projection": "patch_embed.proj",
    "embedding.norm": "norm_pre",
    "transformer.norm": "norm",
    "pool.norm": "fc_norm",
    "head": "head",
    "transformer.blocks.{}.self_attention.norm": "blocks.{}.norm1",
    "transformer.blocks.{}.self_attention.sublayer.qkv": "blocks.{}.attn.qkv",
    "transformer.blocks.{}.self_attention.sublayer.query_norm": "blocks.{}.attn.q_norm",
    "transformer.blocks.{}.self_attention.sublayer.key_norm": "blocks.{}.attn.k_norm",
    "transformer.blocks.{}.self_attention.sublayer.out": "blocks.{}.attn.proj",
    "transformer.blocks.{}.self_attention.scale": "blocks.{}.ls1.gamma",
    "transformer.blocks.{}.feedforward.norm": "blocks.{}.norm2",
    "transformer.blocks.{}.feedforward.sublayer.up": "blocks.{}.mlp.fc1",
    "transformer.blocks.{}.feedforward.sublayer.down": "blocks.{}.mlp.fc2",
    "transformer.blocks.{}.feedforward.scale": "blocks.{}.ls2.gamma",
    "pool.attention.attention.query": "attn_pool.q",
    "pool.attention.attention.key_value": "attn_pool.kv",
    "pool.attention.attention.out": "attn_pool.proj",
    "pool.attention.feedforward.norm": "attn_pool.norm",
    "pool.attention.feedforward.sublayer.up": "attn_pool.mlp.fc1",
    "pool.attention.feedforward.sublayer.down": "attn_pool.mlp.fc2",
}


def timm_weights(theirs: nn.Module) -> dict[str, Tensor]:
    state = theirs.state_dict()
    ours = rename(state, TIMM, len(theirs.blocks))
    prefix = [state[name][0] for name in ("cls_token", "reg_token") if name in state]
    if prefix:
        ours["embedding.prefix.weight"] = torch.cat(prefix)
    if "pos_embed" in state:
        ours["embedding.position.weight"] = state["pos_embed"][0]
    if "attn_pool.latent" in state:
        ours["pool.attention.query"] = state["attn_pool.latent"][0, 0]
    return ours


TRANSFORMERS = {
    "embedding.projection": "vit.embeddings.patch_embeddings.projection",
    "transformer.norm": "vit.layernorm",
    "head": "classifier",
    "transformer.blocks.{}.self_attention.norm": "vit.layers.{}.layernorm_before",
    "transformer.blocks.{}.self_attention.sublayer.qkv": [
        f"vit.layers.{{}}.attention.{letter}_proj" for letter in "qkv"
    ],
    "transformer.blocks.{}.self_attention.sublayer.out": "vit.layers.{}.attention.o_proj",
    "transformer.blocks.{}.feedforward.norm": "vit.layers.{}.layernorm_after",
    "transformer.blocks.{}.feedforward.sublayer.up": "vit.layers.{}.mlp.fc1",
    "transformer.blocks.{}.feedforward.sublayer.down": "vit.layers.{}.mlp.fc2",
}


def transformers_weights(theirs: nn.Module) -> dict[str, Tensor]:
    state = theirs.state_dict()
    ours = rename(state, TRANSFORMERS, theirs.config.num_hidden_layers)
    ours["embedding.prefix.weight"] = state["vit.embeddings.cls_token"][0]
    ours["embedding.position.weight"] = state["vit.embeddings.position_embeddings"][0]
    return ours
