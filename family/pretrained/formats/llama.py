"""Llama (Touvron et al. 2023), Mistral (Jiang et al. 2023) and Qwen2 (Yang et al. 2024), as
transformers and the hub store them: one table of weights, three of configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from family.models.gpt import GPT
from family.pretrained.rope import read_rope, write_rope
from family.pretrained.table import Field, Format, Names, blocks
from family.pretrained.words import ACTIVATIONS, token_ids

NAMES: Names = {
    "embedding.tokens": "model.embed_tokens",
    "transformer.norm": "model.norm",
    "head": "lm_head",
    **blocks(
        "transformer",
        "model.layers.{}",
        {
            "self_attention.norm": "input_layernorm",
            "self_attention.sublayer.qkv": (
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
            ),
            "self_attention.sublayer.out": "self_attn.o_proj",
            "feedforward.norm": "post_attention_layernorm",
            "feedforward.sublayer.up": ("mlp.gate_proj", "mlp.up_proj"),
            "feedforward.sublayer.down": "mlp.down_proj",
        },
    ),
}
FIELDS = (
    Field("vocab_size", "vocab_size"),
    Field("config.dim", "hidden_size"),
    Field("config.depth", "num_hidden_layers"),
    Field("config.heads", "num_attention_heads"),
    Field("config.head_dim", "head_dim", None),
    Field("config.ffn_dim", "intermediate_size"),
    Field("config.activation", "hidden_act", "silu", ACTIVATIONS),
    Field("config.norm_eps", "rms_norm_eps", 1e-6),
    Field("config.attention_dropout", "attention_dropout", 0.0),
    Field("tie_embeddings", "tie_word_embeddings", False),
)
CONSTANTS: Mapping[str, Any] = {
    "config.causal": True,
    "config.gated": True,
    "config.norm": "rmsnorm",
    "config.bias": False,
}


def rotary(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    arguments, fraction = read_rope(config)
    if fraction != 1:
        raise ValueError(f"partial_rotary_factor={fraction!r} is not supported; only 1.0 is.")
    return arguments


def llama_arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Our ``bias`` is that of the output projection too, which ``attention_bias`` decides."""
    biases = [bool(config.get(name)) for name in ("attention_bias", "mlp_bias")]
    if biases[0] != biases[1]:
        raise ValueError(
            "attention_bias={} with mlp_bias={} is not supported; both or none is.".format(*biases)
        )
    return rotary(config, names)


def qwen2_arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    kinds = config.get("layer_types") or []
    other = [kind for kind in kinds if kind != "full_attention"]
    if other:
        raise ValueError(f"layer_types has {other[0]!r}, which is not supported.")
    return rotary(config, names)


def written(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    return {**write_rope(model.config), **token_ids(model)}


FORMAT = Format(
    name="llama",
    member=GPT,
    model_types=("llama",),
    architectures=("LlamaForCausalLM", "LlamaModel"),
    fields=(
        *FIELDS,
        Field("config.kv_heads", "num_key_value_heads", None),
        Field("config.max_tokens", "max_position_embeddings", 2048),
        Field("config.bias", "mlp_bias", False),
        Field("config.qkv_bias", "attention_bias", False),
    ),
    constants=CONSTANTS,
    prefix="model.",
    ignored=(r"rotary_emb\.inv_freq$",),
    names=NAMES,
    detect=llama_arguments,
    finish=written,
)
MISTRAL = Format(
    name="mistral",
    member=GPT,
    model_types=("mistral",),
    architectures=("MistralForCausalLM", "MistralModel"),
    fields=(
        *FIELDS,
        Field("config.kv_heads", "num_key_value_heads", 8),
        Field("config.max_tokens", "max_position_embeddings", 4096 * 32),
        Field("config.window", "sliding_window", 4096),
    ),
    constants=CONSTANTS,
    prefix="model.",
    ignored=(r"rotary_emb\.inv_freq$",),
    names=NAMES,
    detect=rotary,
    finish=written,
)
QWEN2 = Format(
    name="qwen2",
    member=GPT,
    model_types=("qwen2",),
    architectures=("Qwen2ForCausalLM", "Qwen2Model"),
    fields=(
        *FIELDS,
        Field("config.kv_heads", "num_key_value_heads", 32),
        Field("config.max_tokens", "max_position_embeddings", 32_768),
    ),
    constants={**CONSTANTS, "config.qkv_bias": True},
    fixed={"use_sliding_window": False},
    prefix="model.",
    ignored=(r"rotary_emb\.inv_freq$",),
    names=NAMES,
    detect=qwen2_arguments,
    finish=written,
)
