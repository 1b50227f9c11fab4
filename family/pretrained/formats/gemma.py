"""Gemma (Gemma Team 2024), Gemma 2 (2024) and the text model of Gemma 3 (2025), as transformers and
the hub store them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from family.core.config import TransformerConfig
from family.models.gpt import GPT
from family.pretrained.formats.llama import (
    BIASES,
    BLOCK,
    INVERSE_FREQUENCIES,
    NAMES,
    names_of,
    whole_rotary,
    written,
)
from family.pretrained.layers import FULL, SLIDING, read_windows, to_layers, write_windows
from family.pretrained.rope import write_rope
from family.pretrained.shared_fields import ACTIVATIONS, token_ids
from family.pretrained.table import Field, Format, Names

BASES = {FULL: 1_000_000.0, SLIDING: 10_000.0}
"""Of Gemma 3's rotary positions, where its config says nothing."""
NORMED: Names = {
    **BLOCK,
    "self_attention.branch_norm": "post_attention_layernorm",
    "self_attention.sublayer.query_norm": "self_attn.q_norm",
    "self_attention.sublayer.key_norm": "self_attn.k_norm",
    "feedforward.norm": "pre_feedforward_layernorm",
    "feedforward.branch_norm": "post_feedforward_layernorm",
}
"""Gemma 2 and 3 norm the results of sublayers too, and 3 also queries and keys."""
FIELDS = (
    Field("vocab_size", "vocab_size"),
    Field("config.dim", "hidden_size"),
    Field("config.depth", "num_hidden_layers"),
    Field("config.heads", "num_attention_heads"),
    Field("config.head_dim", "head_dim", 256),
    Field("config.ffn_dim", "intermediate_size"),
    Field("config.norm_eps", "rms_norm_eps", 1e-6),
    *BIASES,
    Field("config.attention_dropout", "attention_dropout", 0.0),
    Field("tie_embeddings", "tie_word_embeddings", True),
)
CONSTANTS: Mapping[str, Any] = {
    "scale_embeddings": True,
    "config.causal": True,
    "config.gated": True,
    "config.norm": "offset_rmsnorm",
    "config.bias": False,
}
KNOWN = {"gelu_pytorch_tanh": "gelu_tanh", **ACTIVATIONS}
FIRST_KNOWN: dict[Any, str] = {**KNOWN, "gelu": "gelu_tanh", None: "gelu_tanh"}
"""The first release says "gelu" and means its approximation, and so does null."""


def both_ways(config: Mapping[str, Any]) -> None:
    """Refuses encoders of Gemma's kind."""
    value = config.get("use_bidirectional_attention")
    if value:
        raise ValueError(f"use_bidirectional_attention={value!r} is not supported; only false is.")


def kind_rotary(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The rotary positions of Gemma 3's layers of one kind: version 5 has an object for each kind,
    version 4 the base of sliding layers, which nothing scales, beside that of the others."""
    kinds = config.get("rope_parameters") or {}
    strange = sorted(kinds.keys() - BASES.keys())
    if strange:
        raise ValueError(
            f"rope_parameters has the field {strange[0]!r}; known are {', '.join(BASES)}."
        )
    base, scaling = "rope_local_base_freq", None
    if kind == FULL:
        base, scaling = "rope_theta", config.get("rope_scaling")
    own = kinds.get(kind) or {}
    theta = own.get("rope_theta", config.get(base, BASES[kind]))
    longest = config.get("max_position_embeddings")
    given = {"rope_theta": theta, **(scaling or own)}
    return whole_rotary({"rope_parameters": given, "max_position_embeddings": longest})


def windows(config: Mapping[str, Any], pattern: int) -> list[dict[str, Any]]:
    """What each layer overrides; in older configs, every so many-th sees all."""
    sliding = [bool((i + 1) % pattern) for i in range(config["num_hidden_layers"])]
    return read_windows(config, config.get("sliding_window", 4096), sliding)


def written_windows(config: TransformerConfig) -> dict[str, Any]:
    """Theirs has a width even where no layer has a window."""
    fields = write_windows(config)
    return {
        "layer_types": fields["layer_types"],
        "sliding_window": fields["sliding_window"] or 4096,
    }


def scale(config: Mapping[str, Any]) -> dict[str, Any]:
    """The factor on scores; None where it is the customary one."""
    scalar = config.get("query_pre_attn_scalar", 256)
    customary = scalar == config.get("head_dim", 256)
    return {"config.attention_scale": None if customary else scalar**-0.5}


def written_scale(config: TransformerConfig, name: str) -> dict[str, Any]:
    """The reverse of :func:`scale`.

    Raises:
        ValueError: the factor is that of no whole number, as transformers wants it.
    """
    factor = config.attention_scale
    if factor is None:
        return {"query_pre_attn_scalar": config.head_dim}
    scalar = round(factor**-2) if factor else 0
    if not scalar or scalar**-0.5 != factor:
        raise ValueError(
            f"format={name!r} cannot express config.attention_scale={factor!r}: it is to be the root "
            "of 1/query_pre_attn_scalar, a whole number."
        )
    return {"query_pre_attn_scalar": scalar}


def gemma(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    both_ways(config)
    return whole_rotary(config)


def gemma2(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    layers = to_layers(windows(config, 2))
    return {**gemma(config, names), **scale(config), "config.layers": layers}


def gemma3(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    both_ways(config)
    full, sliding = kind_rotary(config, FULL), kind_rotary(config, SLIDING)
    near = {n.removeprefix("config."): v for n, v in sliding.items() if v != full[n]}
    kinds = windows(config, config.get("sliding_window_pattern", 6))
    layers = to_layers([{**window, **near} if window else {} for window in kinds])
    return {**full, **scale(config), "config.layers": layers}


def written2(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    stack = model.config
    scalar = written_scale(stack, "gemma2")
    return {**written(model, config), **written_windows(stack), **scalar}


def written3(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    """In both layouts, so that either version reads it."""
    stack = model.config
    fields = {**written_windows(stack), **written_scale(stack, "gemma3_text"), **token_ids(model)}
    parameters = {kind: {"rope_type": "default", "rope_theta": b} for kind, b in BASES.items()}
    for i, kind in enumerate(fields["layer_types"]):
        parameters[kind] = write_rope(stack.at(i))["rope_parameters"]
    scaling = {name: v for name, v in parameters[FULL].items() if name != "rope_theta"}
    return {
        **fields,
        "rope_theta": parameters[FULL]["rope_theta"],
        "rope_local_base_freq": parameters[SLIDING]["rope_theta"],
        "rope_scaling": scaling if len(scaling) > 1 else None,
        "rope_parameters": parameters,
    }


FORMAT = Format(
    name="gemma",
    member=GPT,
    model_types=("gemma",),
    architectures=("GemmaForCausalLM", "GemmaModel"),
    fields=(
        *FIELDS,
        Field("config.kv_heads", "num_key_value_heads", 16),
        Field("config.max_tokens", "max_position_embeddings", 8192),
        Field("config.activation", "hidden_act", None, FIRST_KNOWN),
        Field("config.activation", "hidden_activation", None, FIRST_KNOWN),
    ),
    constants=CONSTANTS,
    prefix="model.",
    ignored=(INVERSE_FREQUENCIES,),
    names=NAMES,
    detect=gemma,
    finish=written,
)
GEMMA2 = Format(
    name="gemma2",
    member=GPT,
    model_types=("gemma2",),
    architectures=("Gemma2ForCausalLM", "Gemma2Model"),
    fields=(
        *FIELDS,
        Field("config.kv_heads", "num_key_value_heads", 4),
        Field("config.max_tokens", "max_position_embeddings", 8192),
        Field("config.activation", "hidden_activation", "gelu_pytorch_tanh", KNOWN),
        Field("config.score_cap", "attn_logit_softcapping", 50.0),
        Field("logit_cap", "final_logit_softcapping", 30.0),
    ),
    constants={**CONSTANTS, "config.norm_order": "sandwich"},
    prefix="model.",
    names=names_of(NORMED),
    detect=gemma2,
    finish=written2,
)
GEMMA3 = Format(
    name="gemma3_text",
    member=GPT,
    model_types=("gemma3_text",),
    architectures=("Gemma3ForCausalLM", "Gemma3TextModel"),
    fields=(
        *FIELDS,
        Field("config.kv_heads", "num_key_value_heads", 4),
        Field("config.max_tokens", "max_position_embeddings", 131_072),
        Field("config.activation", "hidden_activation", "gelu_pytorch_tanh", KNOWN),
        Field("logit_cap", "final_logit_softcapping", None),
    ),
    constants={
        **CONSTANTS,
        "config.norm_order": "sandwich",
        "config.qk_norm": "offset_rmsnorm",
    },
    fixed={"attn_logit_softcapping": None},
    prefix="model.",
    names=names_of(NORMED),
    detect=gemma3,
    finish=written3,
)
