"""GPT-2 (Radford et al. 2019), as transformers and the hub store it."""

from __future__ import annotations

from typing import Any

from family.models.gpt import GPT
from family.pretrained.shared_fields import ACTIVATIONS, token_ids
from family.pretrained.table import TRANSPOSED, Field, Format, Row, blocks


def written(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    return dict(token_ids(model))


FORMAT = Format(
    name="gpt2",
    member=GPT,
    model_types=("gpt2",),
    architectures=("GPT2LMHeadModel", "GPT2Model"),
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("config.dim", "n_embd"),
        Field("config.depth", "n_layer"),
        Field("config.heads", "n_head"),
        Field("config.ffn_dim", "n_inner", None),
        Field("config.max_tokens", "n_positions"),
        Field("config.activation", "activation_function", "gelu_new", ACTIVATIONS),
        Field("config.norm_eps", "layer_norm_epsilon", 1e-5),
        Field("config.dropout", "resid_pdrop", 0.1),
        Field("config.attention_dropout", "attn_pdrop", 0.1),
        Field("tie_embeddings", "tie_word_embeddings", True),
    ),
    constants={"config.causal": True, "config.position": "learned"},
    fixed={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    prefix="transformer.",
    ignored=(r"\.attn\.(bias|masked_bias)$",),
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
                "self_attention.sublayer.qkv.weight": Row(("attn.c_attn.weight",), TRANSPOSED),
                "self_attention.sublayer.qkv": "attn.c_attn",
                "self_attention.sublayer.out.weight": Row(("attn.c_proj.weight",), TRANSPOSED),
                "self_attention.sublayer.out": "attn.c_proj",
                "feedforward.norm": "ln_2",
                "feedforward.sublayer.up.weight": Row(("mlp.c_fc.weight",), TRANSPOSED),
                "feedforward.sublayer.up": "mlp.c_fc",
                "feedforward.sublayer.down.weight": Row(("mlp.c_proj.weight",), TRANSPOSED),
                "feedforward.sublayer.down": "mlp.c_proj",
            },
        ),
    },
    finish=written,
)
