"""OLMo 2 (Team OLMo 2024), as transformers and the hub store it."""

from __future__ import annotations

from typing import Any

from family.models.gpt import GPT
from family.pretrained.formats.llama import FIELDS, NAMES
from family.pretrained.rope import read_rope, write_rope
from family.pretrained.table import Field, Format, blocks
from family.pretrained.words import token_ids


def rotary(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    arguments, fraction = read_rope(config)
    if fraction != 1:
        raise ValueError(f"partial_rotary_factor={fraction!r} is not supported; only 1.0 is.")
    return arguments


def written(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    return {**write_rope(model.config), **token_ids(model)}


FORMAT = Format(
    name="olmo2",
    member=GPT,
    model_types=("olmo2",),
    architectures=("Olmo2ForCausalLM", "Olmo2Model"),
    fields=(
        *(field for field in FIELDS if field.theirs != "rms_norm_eps"),
        Field("config.norm_eps", "rms_norm_eps", 1e-5),
        Field("config.kv_heads", "num_key_value_heads", None),
        Field("config.max_tokens", "max_position_embeddings", 2048),
        Field("config.qkv_bias", "attention_bias", False),
        Field("config.out_bias", "attention_bias", False),
    ),
    constants={
        "config.causal": True,
        "config.gated": True,
        "config.norm": "rmsnorm",
        "config.norm_order": "branch",
        "config.bias": False,
        "config.qk_norm": "rmsnorm",
        "config.qk_norm_whole": True,
    },
    prefix="model.",
    names={
        **NAMES,
        **blocks(
            "transformer",
            "model.layers.{}",
            {
                "self_attention.norm": "post_attention_layernorm",
                "self_attention.sublayer.query_norm": "self_attn.q_norm",
                "self_attention.sublayer.key_norm": "self_attn.k_norm",
                "feedforward.norm": "post_feedforward_layernorm",
            },
        ),
    },
    detect=rotary,
    finish=written,
)
