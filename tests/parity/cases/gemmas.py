"""Gemma, OLMo 2 and GPT-Neo: other norms than Llama's, and layers that differ."""

from __future__ import annotations

from typing import Any

import transformers
from cases.causal import CONTEXT, LINEAR, LLAMA, NO_SPECIALS, VOCAB, batch, case, ours, theirs
from torch import nn

__all__ = ["CASES", "batch", "ours", "theirs"]

# Of width 36, since transformers rounds sqrt(width) to float32 in any precision.
GEMMA: dict[str, Any] = {**LLAMA, "hidden_size": 36, "head_dim": 10}
NEAR, FAR = "sliding_attention", "full_attention"
WINDOWED: dict[str, Any] = {
    **GEMMA,
    "num_hidden_layers": 4,
    "sliding_window": 5,
    "query_pre_attn_scalar": 20,
}
BASES = {
    NEAR: {"rope_type": "default", "rope_theta": 50.0},
    FAR: {"rope_type": "linear", "factor": 4.0, "rope_theta": 700.0},
}


def gemma(**options: Any) -> Any:
    config = {**GEMMA, **options}
    return lambda: transformers.GemmaForCausalLM(transformers.GemmaConfig(**config))


def gemma2(**options: Any) -> Any:
    """Caps that are low enough to bend."""
    caps = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.5}
    config = {**WINDOWED, **caps, **options}
    return lambda: transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**config))


def gemma3(**options: Any) -> Any:
    config = {**WINDOWED, "layer_types": [NEAR, NEAR, FAR, NEAR], **options}
    return lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**config))


def olmo2(**options: Any) -> Any:
    config = {**LLAMA, **options}
    return lambda: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**config))


def neo(**options: Any) -> Any:
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "num_layers": 4, "num_heads": 4}
    kinds = {"attention_types": [[["global", "local"], 2]], "window_size": 5}
    config = {
        **sizes,
        **kinds,
        **NO_SPECIALS,
        "intermediate_size": 80,
        "max_position_embeddings": CONTEXT,
        **options,
    }

    def build() -> nn.Module:
        return transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(**config))

    return build


UNUSUAL: dict[str, Any] = {
    "attention_bias": True,
    "tie_word_embeddings": False,
    "final_logit_softcapping": 2.5,
    "num_hidden_layers": 7,
    "layer_types": None,
}
BIASED = {"attention_bias": True, "tie_word_embeddings": True, "num_key_value_heads": None}
CASES = [
    case("Gemma", "gemma", gemma()),
    case("Gemma 2", "gemma2", gemma2()),
    case("Gemma 2, biases, untied", "gemma2", gemma2(**UNUSUAL)),
    case("Gemma 3", "gemma3_text", gemma3(rope_parameters=BASES)),
    case("Gemma 3, biases, untied", "gemma3_text", gemma3(**UNUSUAL)),
    case("OLMo 2", "olmo2", olmo2(rope_parameters=LINEAR)),
    case("OLMo 2, biases, tied", "olmo2", olmo2(**BIASED)),
    case("GPT-Neo", "gpt_neo", neo()),
    case("GPT-Neo, other turns", "gpt_neo", neo(attention_types=[[["global"], 1], [["local"], 3]])),
]
