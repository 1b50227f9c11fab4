"""SmolLM3 (Hugging Face 2025), as transformers and the hub store it: Llama without positions in every
fourth layer."""

from __future__ import annotations

from typing import Any

from family.models.gpt import GPT
from family.pretrained.formats.llama import (
    BIASES,
    CONSTANTS,
    FIELDS,
    INVERSE_FREQUENCIES,
    NAMES,
    whole_rotary,
    written,
)
from family.pretrained.layers import by_layer, read_windows, to_layers, used_window, write_windows
from family.pretrained.table import Field, Format


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """``no_rope_layers`` has, against its name, a 1 for each layer that turns queries and keys."""
    depth, turning = config["num_hidden_layers"], config.get("no_rope_layers")
    if turning is None:
        interval = config.get("no_rope_layer_interval", 4)
        turning = [int((i + 1) % interval != 0) for i in range(depth)]
    if len(turning) < depth:
        raise ValueError(f"no_rope_layers={turning!r} must have {depth} entries, one a layer.")
    turning = turning[:depth]
    window = used_window(config)
    near = read_windows(config, window, [window is not None and not turns for turns in turning])
    still = [{} if turns else {"position": "none"} for turns in turning]
    layers = to_layers([a | b for a, b in zip(near, still, strict=True)])
    return {**whole_rotary(config, theta=2e6), "config.layers": layers}


def smollm3_written(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    turning = [int(position == "rotary") for position in by_layer(model.config, "position")]
    windows = write_windows(model.config)
    return {**written(model, config), **windows, "no_rope_layers": turning}


FORMAT = Format(
    name="smollm3",
    member=GPT,
    model_types=("smollm3",),
    architectures=("SmolLM3ForCausalLM", "SmolLM3Model"),
    fields=(
        *(field for field in FIELDS if field.theirs != "tie_word_embeddings"),
        Field("tie_embeddings", "tie_word_embeddings", True),
        Field("config.kv_heads", "num_key_value_heads", 4),
        Field("config.max_tokens", "max_position_embeddings", 32_768),
        Field("config.bias", "mlp_bias", False),
        *BIASES,
    ),
    constants=CONSTANTS,
    prefix="model.",
    ignored=(INVERSE_FREQUENCIES,),
    names=NAMES,
    detect=arguments,
    finish=smollm3_written,
)
