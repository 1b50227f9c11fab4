"""OPT (Zhang et al. 2022), as transformers and the hub store it."""

from __future__ import annotations

from typing import Any

from family.models.gpt import GPT
from family.pretrained.shared_fields import ACTIVATIONS, token_ids
from family.pretrained.table import POSITIONS, Field, Format, Row, blocks


def projection(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Refuses 350m's embeddings, which are narrower than its stack."""
    width, dim = config.get("word_embed_proj_dim"), config["hidden_size"]
    if width not in (None, dim):
        raise ValueError(
            f"word_embed_proj_dim={width!r} is not supported; only hidden_size, {dim!r}, is."
        )
    return {}


def written(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    return {"word_embed_proj_dim": model.config.dim, **token_ids(model)}


FORMAT = Format(
    name="opt",
    member=GPT,
    model_types=("opt",),
    architectures=("OPTForCausalLM", "OPTModel"),
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("config.dim", "hidden_size"),
        Field("config.depth", "num_hidden_layers"),
        Field("config.heads", "num_attention_heads"),
        Field("config.ffn_dim", "ffn_dim"),
        Field("config.max_tokens", "max_position_embeddings", 2048),
        Field("config.activation", "activation_function", "relu", ACTIVATIONS),
        Field("config.norm_order", "do_layer_norm_before", True, {True: "pre", False: "post"}),
        Field("config.bias", "enable_bias", True),
        Field("config.dropout", "dropout", 0.1),
        Field("config.attention_dropout", "attention_dropout", 0.0),
        Field("tie_embeddings", "tie_word_embeddings", True),
    ),
    constants={"config.causal": True, "config.position": "learned"},
    fixed={"_remove_final_layer_norm": False, "layer_norm_elementwise_affine": True},
    prefix="model.",
    names={
        "embedding.tokens": "model.decoder.embed_tokens",
        "embedding.position.weight": Row(("model.decoder.embed_positions.weight",), POSITIONS),
        "transformer.norm": "model.decoder.final_layer_norm",
        "head": "lm_head",
        **blocks(
            "transformer",
            "model.decoder.layers.{}",
            {
                "self_attention.norm": "self_attn_layer_norm",
                "self_attention.sublayer.qkv": (
                    "self_attn.q_proj",
                    "self_attn.k_proj",
                    "self_attn.v_proj",
                ),
                "self_attention.sublayer.out": "self_attn.out_proj",
                "feedforward.norm": "final_layer_norm",
                "feedforward.sublayer.up": "fc1",
                "feedforward.sublayer.down": "fc2",
            },
        ),
    },
    detect=projection,
    finish=written,
)
