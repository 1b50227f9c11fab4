"""GPT-NeoX (Black et al. 2022) and Pythia (Biderman et al. 2023), as transformers and the hub
store them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from family.core.attention import Attention
from family.models.gpt import GPT
from family.pretrained.rope import read_rope, rotary_dim, turning_fraction, write_rope
from family.pretrained.shared_fields import ACTIVATIONS, token_ids
from family.pretrained.table import Field, Format, Reshape, Row, blocks


def by_kind(x: Tensor, owner: nn.Module) -> Tensor:
    """Rows ``(heads, 3, head_dim)``, as they store them -> ``(3, heads, head_dim)``."""
    assert isinstance(owner, Attention)
    return x.unflatten(0, (owner.heads, 3, owner.head_dim)).transpose(0, 1).flatten(0, 2)


def by_head(x: Tensor, owner: nn.Module) -> Tensor:
    """The reverse of :func:`by_kind`."""
    assert isinstance(owner, Attention)
    return x.unflatten(0, (3, owner.heads, owner.head_dim)).transpose(0, 1).flatten(0, 2)


INTERLEAVED = Reshape(by_kind, by_head)


def rotary(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    arguments, fraction = read_rope(config, "rotary_emb_base", config.get("rotary_pct", 0.25))
    return {**arguments, "config.rotary_dim": rotary_dim(config, fraction)}


def written(model: GPT, config: dict[str, Any]) -> dict[str, Any]:
    fraction = turning_fraction(model.config)
    fields = write_rope(model.config, "rotary_emb_base")
    fields["rope_parameters"]["partial_rotary_factor"] = fraction
    return {**fields, "rotary_pct": fraction, **token_ids(model)}


FORMAT = Format(
    name="gpt_neox",
    member=GPT,
    model_types=("gpt_neox",),
    architectures=("GPTNeoXForCausalLM", "GPTNeoXModel"),
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("config.dim", "hidden_size"),
        Field("config.depth", "num_hidden_layers"),
        Field("config.heads", "num_attention_heads"),
        Field("config.ffn_dim", "intermediate_size"),
        Field("config.max_tokens", "max_position_embeddings", 2048),
        Field("config.activation", "hidden_act", "gelu", ACTIVATIONS),
        Field("config.norm_eps", "layer_norm_eps", 1e-5),
        Field("config.parallel", "use_parallel_residual", True),
        Field("config.dropout", "hidden_dropout", 0.0),
        Field("config.attention_dropout", "attention_dropout", 0.0),
        Field("tie_embeddings", "tie_word_embeddings", False),
    ),
    constants={"config.causal": True},
    fixed={"attention_bias": True},
    prefix="gpt_neox.",
    ignored=(r"\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$",),
    names={
        "embedding.tokens": "gpt_neox.embed_in",
        "transformer.norm": "gpt_neox.final_layer_norm",
        "head": "embed_out",
        **blocks(
            "transformer",
            "gpt_neox.layers.{}",
            {
                "self_attention.norm": "input_layernorm",
                "self_attention.sublayer.qkv.weight": Row(
                    ("attention.query_key_value.weight",), INTERLEAVED
                ),
                "self_attention.sublayer.qkv.bias": Row(
                    ("attention.query_key_value.bias",), INTERLEAVED
                ),
                "self_attention.sublayer.out": "attention.dense",
                "feedforward.norm": "post_attention_layernorm",
                "feedforward.sublayer.up": "mlp.dense_h_to_4h",
                "feedforward.sublayer.down": "mlp.dense_4h_to_h",
            },
        ),
    },
    modules=lambda model: {"head": "lm_head"},  # since version 5 of transformers
    detect=rotary,
    finish=written,
)
