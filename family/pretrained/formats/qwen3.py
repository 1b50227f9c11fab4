"""Qwen3 (Yang et al. 2025), dense and with a mixture of experts, as transformers and the hub store
them: Qwen2 with norms of queries and keys."""

from __future__ import annotations

from typing import Any

from family.models.gpt import GPT
from family.pretrained.experts import split_experts
from family.pretrained.formats.llama import (
    BIASES,
    BLOCK,
    CONSTANTS,
    FIELDS,
    INVERSE_FREQUENCIES,
    names_of,
    qwen_arguments,
    qwen_written,
    whole_rotary,
    written,
)
from family.pretrained.layers import by_layer, to_layers, used_window
from family.pretrained.table import Field, Format, Names

NORMS: Names = {
    "self_attention.sublayer.query_norm": "self_attn.q_norm",
    "self_attention.sublayer.key_norm": "self_attn.k_norm",
}
EXPERTS: Names = {
    "feedforward.sublayer.router": "mlp.gate",
    "feedforward.sublayer.experts.{}.up": (
        "mlp.experts.{}.gate_proj",
        "mlp.experts.{}.up_proj",
    ),
    "feedforward.sublayer.experts.{}.down": "mlp.experts.{}.down_proj",
}
NORMED = {**CONSTANTS, "config.qk_norm": "rmsnorm"}


def mixed_layers(config: dict[str, Any]) -> list[bool]:
    """Which layers have experts: every ``decoder_sparse_step``-th but those in ``mlp_only_layers``."""
    step, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    depth = config["num_hidden_layers"]
    return [(i + 1) % step == 0 and i not in dense for i in range(depth)]


def moe_arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The stack is that of the layers with experts; those without override it."""
    dense = {"feedforward": "dense", "ffn_dim": config["intermediate_size"]}
    return {
        **whole_rotary(config),
        "config.window": used_window(config, 4096),
        "config.experts": config.get("num_experts", config.get("num_local_experts", 128)),
        "config.layers": to_layers([{} if mixed else dense for mixed in mixed_layers(config)]),
    }


def moe_written(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    stack = model.config
    kinds, widths = by_layer(stack, "feedforward"), by_layer(stack, "ffn_dim")
    sizes = dict(zip(kinds, widths, strict=True))
    return {
        **written(model, config),
        "use_sliding_window": stack.window is not None,
        "num_experts": stack.experts,  # version 4 knows the first name, version 5 writes the second
        "num_local_experts": stack.experts,
        "moe_intermediate_size": sizes.get("experts", stack.ffn_dim),
        "intermediate_size": sizes.get("dense", stack.ffn_dim),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [i for i, kind in enumerate(kinds) if kind == "dense"],
    }


FORMAT = Format(
    name="qwen3",
    member=GPT,
    model_types=("qwen3",),
    architectures=("Qwen3ForCausalLM", "Qwen3Model"),
    fields=(
        *(field for field in FIELDS if field.theirs != "head_dim"),
        Field("config.head_dim", "head_dim", 128),
        Field("config.kv_heads", "num_key_value_heads", 32),
        Field("config.max_tokens", "max_position_embeddings", 32_768),
        *BIASES,
    ),
    constants=NORMED,
    prefix="model.",
    ignored=(INVERSE_FREQUENCIES,),
    names=names_of({**BLOCK, **NORMS}),
    detect=qwen_arguments,
    finish=qwen_written,
)
MOE = Format(
    name="qwen3_moe",
    member=GPT,
    model_types=("qwen3_moe",),
    architectures=("Qwen3MoeForCausalLM", "Qwen3MoeModel"),
    fields=(
        *(field for field in FIELDS if field.theirs != "intermediate_size"),
        Field("config.ffn_dim", "moe_intermediate_size", 768),
        Field("config.kv_heads", "num_key_value_heads", 4),
        Field("config.max_tokens", "max_position_embeddings", 32_768),
        Field("config.experts_per_token", "num_experts_per_tok", 8),
        Field("config.normalize_routing", "norm_topk_prob", False),
        Field("config.window", "sliding_window", 4096),
        *BIASES,
    ),
    constants={**NORMED, "config.feedforward": "experts"},
    prefix="model.",
    ignored=(INVERSE_FREQUENCIES,),
    names=names_of({**BLOCK, **NORMS, **EXPERTS}),
    opened=split_experts("gate_proj", "up_proj", "down_proj"),
    detect=moe_arguments,
    finish=moe_written,
)
