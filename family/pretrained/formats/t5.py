"""T5 v1.0 and v1.1 (Raffel et al. 2020) and Flan-T5 (Chung et al. 2022), as transformers and the hub
store them."""

from __future__ import annotations

from typing import Any

from family.models.t5 import T5
from family.pretrained.pairs import CODING, both, constants
from family.pretrained.shared_fields import token_ids
from family.pretrained.table import Field, Format, Names, Row, blocks

FEEDFORWARDS = {
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "silu": ("silu", False),
    "gated-gelu": ("gelu_tanh", True),
    "gated-silu": ("silu", True),
    "gated-relu": ("relu", True),
}
"""``feed_forward_proj`` -> activation, and whether it is gated."""


def attention(layer: int, kind: str) -> dict[str, str]:
    return {name: f"layer.{layer}.{kind}.{name}" for name in "qkvo"}


def names(model: T5) -> Names:
    own, cross = attention(0, "SelfAttention"), attention(1, "EncDecAttention")
    attending: Names = {
        "self_attention.norm": "layer.0.layer_norm",
        "self_attention.sublayer.qkv": (own["q"], own["k"], own["v"]),
        "self_attention.sublayer.out": own["o"],
    }
    crossing: Names = {
        "cross_attention.norm": "layer.1.layer_norm",
        "cross_attention.sublayer.query": cross["q"],
        "cross_attention.sublayer.key_value": (cross["k"], cross["v"]),
        "cross_attention.sublayer.out": cross["o"],
    }
    encoder = {**attending, **feedforward(1, model.config.gated)}
    decoder = {**attending, **crossing, **feedforward(2, model.config.gated)}
    table = "block.0.layer.0.SelfAttention.relative_attention_bias"
    return {
        "source_embedding.tokens": Row(("shared",), copies=("encoder.embed_tokens",)),
        "target_embedding.tokens": "decoder.embed_tokens",
        "encoder.bias.table": f"encoder.{table}",
        "decoder.bias.table": f"decoder.{table}",
        "encoder.norm": "encoder.final_layer_norm",
        "decoder.norm": "decoder.final_layer_norm",
        "head": "lm_head",
        **blocks("encoder", "encoder.block.{}", encoder),
        **blocks("decoder", "decoder.block.{}", decoder),
    }


def feedforward(layer: int, gated: bool) -> Names:
    dense = f"layer.{layer}.DenseReluDense"
    return {
        "feedforward.norm": f"layer.{layer}.layer_norm",
        "feedforward.sublayer.up": (f"{dense}.wi_0", f"{dense}.wi_1") if gated else f"{dense}.wi",
        "feedforward.sublayer.down": f"{dense}.wo",
    }


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    kind = config.get("feed_forward_proj", "relu")
    if kind not in FEEDFORWARDS:
        known = ", ".join(FEEDFORWARDS)
        raise ValueError(f"feed_forward_proj={kind!r} is not supported; known are {known}.")
    activation, gated = FEEDFORWARDS[kind]
    # Version 5 ties what the weights allow, and says here whether outputs are scaled, as in v1.0.
    tied = config.get("tie_word_embeddings", True)
    scaled = config.get("scale_decoder_outputs", tied)
    if scaled and not tied:
        raise ValueError("scale_decoder_outputs=True needs tie_word_embeddings=True.")
    depth = config.get("num_decoder_layers")
    return {
        "config.activation": activation,
        "config.gated": gated,
        "decoder_config.activation": activation,
        "decoder_config.gated": gated,
        "decoder_config.depth": config["num_layers"] if depth is None else depth,
        "tie_embeddings": scaled or (tied and "lm_head.weight" not in names),
        "scale_outputs": scaled,
    }


def written(model: T5, config: dict[str, Any]) -> dict[str, Any]:
    kinds = {ours: kind for kind, ours in FEEDFORWARDS.items()}
    ours = model.config.activation, model.config.gated
    if ours not in kinds:
        raise ValueError(f"format='t5' cannot express activation={ours[0]!r} with gated={ours[1]}.")
    return {
        **token_ids(model),
        "pad_token_id": model.bos_id,  # one token in all that is published
        "feed_forward_proj": kinds[ours],
        "tie_word_embeddings": model.tie_embeddings,
        "scale_decoder_outputs": model.scale_outputs,
    }


FORMAT = Format(
    name="t5",
    member=T5,
    model_types=("t5",),
    architectures=("T5ForConditionalGeneration", "T5WithLMHeadModel"),
    fields=(
        Field("vocab_size", "vocab_size"),
        *both(
            Field("dim", "d_model"),
            Field("head_dim", "d_kv", 64),
            Field("ffn_dim", "d_ff"),
            Field("heads", "num_heads"),
            Field("max_tokens", "n_positions", 1024),  # no limit, see TransformerConfig.longest
            Field("relative_buckets", "relative_attention_num_buckets", 32),
            Field("relative_max_distance", "relative_attention_max_distance", 128),
            Field("norm_eps", "layer_norm_epsilon", 1e-6),
            Field("dropout", "dropout_rate", 0.1),
            Field("attention_dropout", "dropout_rate", 0.1),
            Field("ffn_dropout", "dropout_rate", 0.1),
        ),
        Field("decoder_config.context_dim", "d_model"),
        Field("config.depth", "num_layers"),
        Field("decoder_config.depth", "num_decoder_layers", None),
        Field("decoder_depth", "num_decoder_layers", None),
        Field("bos_id", "decoder_start_token_id", 0),
    ),
    constants=constants(norm="rmsnorm", bias=False, position="relative", attention_scale=1.0),
    fixed=CODING,
    # Distances between texts mean nothing; the first files have this table all the same.
    ignored=(r"EncDecAttention\.relative_attention_bias\.weight$",),
    names=names,
    detect=arguments,
    finish=written,
)
