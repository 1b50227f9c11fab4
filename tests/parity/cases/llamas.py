"""Relatives of Llama: windows and positions of some layers alone, mixtures of experts, long contexts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from cases.causal import LLAMA, TOKENS, VOCAB, case, llama
from harness import Batch, Case
from torch import nn

WIDE: dict[str, Any] = {**LLAMA, "head_dim": 16}
NEAR = {"use_sliding_window": True, "sliding_window": 5}
"""A window shorter than the prompts."""
KINDS = ["full_attention", "sliding_attention", "full_attention"]
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0}
LONG: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "short_factor": [1.0, 1.05, 1.3],
    "long_factor": [1.1, 2.0, 7.5],
}


def even_batch() -> Batch:
    """Prompts of one length: transformers changes the frequencies of all rows at once."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, VOCAB, (3, TOKENS), generator=generator)
    return {"input_ids": ids, "mask": torch.ones(3, TOKENS, dtype=torch.bool)}


def of(name: str, sizes: dict[str, Any], **options: Any) -> Any:
    """What builds the language model of this name."""
    config, model = (getattr(transformers, name + kind) for kind in ("Config", "ForCausalLM"))
    return lambda: model(config(**{**sizes, **options}))


def eager(build: Any) -> Any:
    """With experts computed one by one: their grouped products know no float64."""

    def building() -> nn.Module:
        model = build()
        model.set_experts_implementation("eager")
        return model

    return building


def mixture(member: str, format: str, build: Any) -> Case:
    def reload(folder: Path) -> nn.Module:
        model = type(build()).from_pretrained(folder)
        model.set_experts_implementation("eager")
        return model

    return case(member, format, eager(build), reload=reload)


def ready(model: Any) -> nn.Module:
    """With the frequencies of long texts, which they would else make in the precision of the first."""
    rotary, config = model.model.rotary_emb, model.config
    compute = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["longrope"]
    rotary.long_inv_freq, _ = compute(config, seq_len=config.max_position_embeddings + 1)
    return model


def longrope(member: str, context: int, **more: Any) -> Case:
    """Phi-3, trained on so many tokens; 3 of 4 channels of its heads turn."""
    rope = {**LONG, "partial_rotary_factor": 0.75}
    build = of("Phi3", LLAMA, rope_parameters=rope, original_max_position_embeddings=context)

    def reload(folder: Path) -> nn.Module:
        return ready(transformers.Phi3ForCausalLM.from_pretrained(folder))

    return case(member, "phi3", lambda: ready(build()), reload=reload, **more)


CASES = [
    case("Llama, biases of attention alone", "llama", llama(attention_bias=True)),
    case(
        "Llama, YaRN",
        "llama",
        llama(rope_parameters={**YARN, "original_max_position_embeddings": 32}),
    ),
    case(
        "Qwen2, windows in its last layers",
        "qwen2",
        of("Qwen2", LLAMA, **NEAR, max_window_layers=1),
    ),
    case("Qwen3", "qwen3", of("Qwen3", WIDE, tie_word_embeddings=True)),
    case(
        "Qwen3, window in one layer, biases, YaRN",
        "qwen3",
        of(
            "Qwen3",
            WIDE,
            **NEAR,
            layer_types=KINDS,
            attention_bias=True,
            rope_parameters={**YARN, "original_max_position_embeddings": 32, "truncate": False},
        ),
    ),
    mixture(
        "Qwen3-MoE, every second layer",
        "qwen3_moe",
        of(
            "Qwen3Moe",
            WIDE,
            decoder_sparse_step=2,
            moe_intermediate_size=24,
            num_experts=5,
            num_experts_per_tok=3,
        ),
    ),
    mixture(
        "Qwen3-MoE, all layers but one, window",
        "qwen3_moe",
        of(
            "Qwen3Moe",
            WIDE,
            **NEAR,
            mlp_only_layers=[1],
            moe_intermediate_size=24,
            num_experts=5,
            num_experts_per_tok=2,
            norm_topk_prob=True,
        ),
    ),
    mixture(
        "Mixtral",
        "mixtral",
        of("Mixtral", LLAMA, num_local_experts=5, num_experts_per_tok=2, sliding_window=5),
    ),
    case(
        "SmolLM3, window where positions are not",
        "smollm3",
        of("SmolLM3", LLAMA, **NEAR, no_rope_layer_interval=2, attention_bias=True),
    ),
    case(
        "SmolLM3, untied",
        "smollm3",
        of("SmolLM3", LLAMA, no_rope_layers=[0, 1, 1], tie_word_embeddings=False),
    ),
    case("Phi-3, window", "phi3", of("Phi3", LLAMA, sliding_window=5)),
    longrope("Phi-3, LongRoPE, short texts", 96),
    longrope("Phi-3, LongRoPE, long texts", 2),
    longrope("Phi-3, LongRoPE, texts that grow long", 20, batch=even_batch),
]
