"""Llama (Touvron et al. 2023), Mistral (Jiang et al. 2023) and Qwen2 (Yang et al. 2024), as
transformers and the hub store them: one table of weights, three of configs. Their relatives, in files
of their own, build on this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from family.models.gpt import GPT
from family.pretrained.layers import SLIDING, read_windows, to_layers, used_window, write_windows
from family.pretrained.rope import read_rope, write_rope
from family.pretrained.shared_fields import ACTIVATIONS, token_ids
from family.pretrained.table import Field, Format, Names, blocks

BLOCK: Names = {
    "self_attention.norm": "input_layernorm",
    "self_attention.sublayer.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention.sublayer.out": "self_attn.o_proj",
    "feedforward.norm": "post_attention_layernorm",
    "feedforward.sublayer.up": ("mlp.gate_proj", "mlp.up_proj"),
    "feedforward.sublayer.down": "mlp.down_proj",
}


def names_of(block: Names) -> Names:
    """Of a stack of such blocks, with its embedding and head."""
    return {
        "embedding.tokens": "model.embed_tokens",
        "transformer.norm": "model.norm",
        "head": "lm_head",
        **blocks("transformer", "model.layers.{}", block),
    }


NAMES = names_of(BLOCK)
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


BIASES = (
    Field("config.qkv_bias", "attention_bias", False),
    Field("config.out_bias", "attention_bias", False),
)
INVERSE_FREQUENCIES = r"rotary_emb\.inv_freq$"
"""A buffer in older files."""


def whole_rotary(config: Mapping[str, Any], theta: float = 10_000.0) -> dict[str, Any]:
    """Arguments of ours for heads that turn as a whole.

    Args:
        theta: the base of rotary positions, where the config has none.
    """
    arguments, fraction = read_rope(
        config, fraction=config.get("partial_rotary_factor", 1.0), theta=theta
    )
    if fraction != 1:
        raise ValueError(f"partial_rotary_factor={fraction!r} is not supported; only 1.0 is.")
    return arguments


def rotary(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return whole_rotary(config)


def qwen_arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The first ``max_window_layers`` layers see all, unless ``layer_types`` has it otherwise."""
    window, first = used_window(config, 4096), config.get("max_window_layers", 28)
    sliding = [window is not None and i >= first for i in range(config["num_hidden_layers"])]
    layers = to_layers(read_windows(config, window, sliding))
    return {**whole_rotary(config), "config.layers": layers}


def written(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    return {**write_rope(model.config), **token_ids(model)}


def qwen_written(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    windows = write_windows(model.config)
    kinds = [*windows["layer_types"], SLIDING]
    return {**written(model, config), **windows, "max_window_layers": kinds.index(SLIDING)}


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
        *BIASES,
    ),
    constants=CONSTANTS,
    prefix="model.",
    ignored=(INVERSE_FREQUENCIES,),
    names=NAMES,
    detect=rotary,
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
    ignored=(INVERSE_FREQUENCIES,),
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
    prefix="model.",
    ignored=(INVERSE_FREQUENCIES,),
    names=NAMES,
    detect=qwen_arguments,
    finish=qwen_written,
)
