"""OLMo 2 (Team OLMo 2024), as transformers and the hub store it."""

from __future__ import annotations

from family.models.gpt import GPT
from family.pretrained.formats.llama import (
    BIASES,
    BLOCK,
    CONSTANTS,
    FIELDS,
    names_of,
    rotary,
    written,
)
from family.pretrained.table import Field, Format

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
        *BIASES,
    ),
    constants={
        **CONSTANTS,
        "config.norm_order": "branch",
        "config.qk_norm": "rmsnorm",
        "config.qk_norm_whole": True,
    },
    prefix="model.",
    names=names_of(
        {
            **BLOCK,
            "self_attention.norm": "post_attention_layernorm",
            "self_attention.sublayer.query_norm": "self_attn.q_norm",
            "self_attention.sublayer.key_norm": "self_attn.k_norm",
            "feedforward.norm": "post_feedforward_layernorm",
        }
    ),
    detect=rotary,
    finish=written,
)
