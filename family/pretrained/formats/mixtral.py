"""Mixtral (Jiang et al. 2024), as transformers and the hub store it: Mistral with a mixture of experts."""

from __future__ import annotations

from typing import Any

from family.models.gpt import GPT
from family.pretrained.experts import split_experts
from family.pretrained.formats.llama import (
    BLOCK,
    CONSTANTS,
    FIELDS,
    INVERSE_FREQUENCIES,
    names_of,
    whole_rotary,
    written,
)
from family.pretrained.table import Field, Format, Names

EXPERTS: Names = {
    "feedforward.sublayer.router": "block_sparse_moe.gate",
    "feedforward.sublayer.experts.{}.up": (
        "block_sparse_moe.experts.{}.w1",
        "block_sparse_moe.experts.{}.w3",
    ),
    "feedforward.sublayer.experts.{}.down": "block_sparse_moe.experts.{}.w2",
}
DENSE = ("feedforward.sublayer.up", "feedforward.sublayer.down")


def renamed(name: str) -> str:
    """Version 5 calls the mixture as it calls any feed-forward, where it packs experts together."""
    return name.replace(".mlp.", ".block_sparse_moe.")


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return whole_rotary(config, theta=1e6)


FORMAT = Format(
    name="mixtral",
    member=GPT,
    model_types=("mixtral",),
    architectures=("MixtralForCausalLM", "MixtralModel"),
    fields=(
        *(field for field in FIELDS if field.theirs != "rms_norm_eps"),
        Field("config.norm_eps", "rms_norm_eps", 1e-5),
        Field("config.kv_heads", "num_key_value_heads", 8),
        Field("config.max_tokens", "max_position_embeddings", 4096 * 32),
        Field("config.window", "sliding_window", None),
        Field("config.experts", "num_local_experts", 8),
        Field("config.experts_per_token", "num_experts_per_tok", 2),
    ),
    constants={**CONSTANTS, "config.feedforward": "experts"},
    prefix="model.",
    ignored=(INVERSE_FREQUENCIES,),
    renamed=renamed,
    opened=split_experts("w1", "w3", "w2"),
    names=names_of({**{n: v for n, v in BLOCK.items() if n not in DENSE}, **EXPERTS}),
    detect=arguments,
    finish=written,
)
