"""Phi-3 (Abdin et al. 2024) and Phi-4-mini (2025), as transformers and the hub store them: Llama with
fused layers, positions for long contexts (LongRoPE), and heads that may turn in part.

Where a text is longer than ``original_max_position_embeddings``, other frequencies hold for all of it.
transformers decides so for the longest row of a batch, and for all rows; we decide row by row, so that
no text changes with its neighbours. A generation that arrives there reads its text anew, in both.
"""

from __future__ import annotations

from typing import Any

from family.core.rotary import RotaryScaling
from family.models.gpt import GPT
from family.pretrained.formats.llama import (
    BLOCK,
    CONSTANTS,
    FIELDS,
    INVERSE_FREQUENCIES,
    names_of,
    written,
)
from family.pretrained.rope import (
    CONTEXT,
    longrope_magnitude,
    read_rope,
    rotary_dim,
    turning_fraction,
)
from family.pretrained.table import Field, Format, Names

FUSED: Names = {
    "self_attention.sublayer.qkv": "self_attn.qkv_proj",
    "feedforward.sublayer.up": "mlp.gate_up_proj",
}
OLD = ("su", "yarn")
"""What files of the first months call longrope."""


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Its loader knows two kinds of positions, and the context of pre-training beside them."""
    config = {CONTEXT: 4096, **config}
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    given = config.get(name) or {}
    kind = given.get("rope_type", given.get("type", "default"))
    if kind in OLD:
        config[name] = {**given, "rope_type": "longrope"}
    elif kind not in ("default", "longrope"):
        raise ValueError(f"{name}: rope_type={kind!r} is not supported; only longrope is.")
    found, fraction = read_rope(config, fraction=config.get("partial_rotary_factor", 1.0))
    return {**found, "config.rotary_dim": rotary_dim(config, fraction)}


def phi3_written(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    """Version 4 takes an object of exactly three fields, and derives the rest from those beside it."""
    stack, fields = model.config, written(model, config)
    scaling, context = stack.rotary_scaling, stack.max_tokens
    fraction = turning_fraction(stack)
    if isinstance(scaling, RotaryScaling):
        context = scaling.tokens
        magnitude = longrope_magnitude(stack.max_tokens / context, context)
        given = fields["rope_scaling"]
        if magnitude == scaling.magnitude:
            three = ("short_factor", "long_factor")
            fields["rope_scaling"] = {"type": given["rope_type"]} | {n: given[n] for n in three}
    fields["rope_parameters"]["partial_rotary_factor"] = fraction
    return {**fields, CONTEXT: context, "partial_rotary_factor": fraction}


FORMAT = Format(
    name="phi3",
    member=GPT,
    model_types=("phi3",),
    architectures=("Phi3ForCausalLM", "Phi3Model"),
    fields=(
        *(field for field in FIELDS if field.theirs != "rms_norm_eps"),
        Field("config.norm_eps", "rms_norm_eps", 1e-5),
        Field("config.kv_heads", "num_key_value_heads", None),
        Field("config.max_tokens", "max_position_embeddings", 4096),
        Field("config.window", "sliding_window", None),
        Field("config.dropout", "resid_pdrop", 0.0),
    ),
    constants=CONSTANTS,
    prefix="model.",
    ignored=(INVERSE_FREQUENCIES,),
    names=names_of({**BLOCK, **FUSED}),
    detect=arguments,
    finish=phi3_written,
)
