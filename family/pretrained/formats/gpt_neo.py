"""GPT-Neo (Black et al. 2021), as transformers and the hub store it."""

from __future__ import annotations

from typing import Any

from family.models.gpt import GPT
from family.pretrained.layers import by_layer, to_layers
from family.pretrained.shared_fields import ACTIVATIONS, token_ids
from family.pretrained.table import Field, Format, blocks

KINDS = ("global", "local")


def layers(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """``attention_types`` is a list of (kinds of some layers, how many times over)."""
    types = config.get("attention_types") or [[KINDS, 12]]
    kinds = [kind for some, times in types for _ in range(times) for kind in some]
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(
                f"attention_types has {kind!r}, which is not supported; known are {', '.join(KINDS)}."
            )
    depth = config["num_layers"]
    if len(kinds) != depth:
        raise ValueError(f"attention_types is for {len(kinds)} layers, but num_layers={depth}.")
    window = {"window": config.get("window_size", 256)}
    found = to_layers([window if kind == "local" else {} for kind in kinds])
    return {"config.layers": found}


def written(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    windows = by_layer(model.config, "window")
    kinds = ["global" if window is None else "local" for window in windows]
    return {
        "attention_types": [[kinds, 1]],
        "window_size": next((w for w in windows if w is not None), 256),
        **token_ids(model),
    }


FORMAT = Format(
    name="gpt_neo",
    member=GPT,
    model_types=("gpt_neo",),
    architectures=("GPTNeoForCausalLM", "GPTNeoModel"),
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("config.dim", "hidden_size"),
        Field("config.depth", "num_layers"),
        Field("config.heads", "num_heads"),
        Field("config.ffn_dim", "intermediate_size", None),
        Field("config.max_tokens", "max_position_embeddings", 2048),
        Field("config.activation", "activation_function", "gelu_new", ACTIVATIONS),
        Field("config.norm_eps", "layer_norm_epsilon", 1e-5),
        Field("config.dropout", "resid_dropout", 0.0),
        Field("config.attention_dropout", "attention_dropout", 0.0),
        Field("tie_embeddings", "tie_word_embeddings", True),
    ),
    constants={
        "config.causal": True,
        "config.position": "learned",
        "config.attention_scale": 1.0,
        "config.qkv_bias": False,
    },
    prefix="transformer.",
    ignored=(r"\.attn\.attention\.(bias|masked_bias)$",),
    names={
        "embedding.tokens": "transformer.wte",
        "embedding.position": "transformer.wpe",
        "transformer.norm": "transformer.ln_f",
        "head": "lm_head",
        **blocks(
            "transformer",
            "transformer.h.{}",
            {
                "self_attention.norm": "ln_1",
                "self_attention.sublayer.qkv": tuple(
                    f"attn.attention.{part}_proj" for part in "qkv"
                ),
                "self_attention.sublayer.out": "attn.attention.out_proj",
                "feedforward.norm": "ln_2",
                "feedforward.sublayer.up": "mlp.c_fc",
                "feedforward.sublayer.down": "mlp.c_proj",
            },
        ),
    },
    detect=layers,
    finish=written,
)
