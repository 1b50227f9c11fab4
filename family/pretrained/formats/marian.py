"""Marian (Junczys-Dowmunt et al. 2018; the OPUS-MT models), as transformers and the hub store it."""

from __future__ import annotations

from typing import Any

from family.models.seq2seq import Seq2Seq
from family.pretrained.table import FIRST, Field, Format, Names, Row, blocks
from family.pretrained.words import ACTIVATIONS, BLOCK, CROSS, token_ids


def names(model: Seq2Seq) -> Names:
    source = Row(("model.shared",), copies=("model.encoder.embed_tokens",))
    if model.target_vocab_size is not None:  # a table of its own for each side
        source = Row(("model.encoder.embed_tokens",))
    return {
        "source_embedding.tokens": source,
        "target_embedding.tokens": "model.decoder.embed_tokens",
        "head": "lm_head",
        "head.bias": Row(("final_logits_bias",), FIRST),
        **blocks("encoder", "model.encoder.layers.{}", BLOCK),
        **blocks("decoder", "model.decoder.layers.{}", {**BLOCK, **CROSS}),
    }


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    for field in ("attention_heads", "ffn_dim"):
        encoder, decoder = config[f"encoder_{field}"], config.get(f"decoder_{field}")
        if decoder not in (None, encoder):
            raise ValueError(
                f"decoder_{field}={decoder!r} is not supported; only encoder_{field}, {encoder!r}, is."
            )
    if config.get("share_encoder_decoder_embeddings", True):
        return {}
    return {"target_vocab_size": config.get("decoder_vocab_size") or config["vocab_size"]}


def written(model: Seq2Seq, config: dict[str, Any]) -> dict[str, Any]:
    return {
        **token_ids(model),
        "pad_token_id": model.forbidden_id,
        "decoder_attention_heads": config["encoder_attention_heads"],
        "decoder_ffn_dim": config["encoder_ffn_dim"],
        "decoder_vocab_size": model.target_vocab_size or model.vocab_size,
        "share_encoder_decoder_embeddings": model.target_vocab_size is None,
    }


FORMAT = Format(
    name="marian",
    member=Seq2Seq,
    model_types=("marian",),
    architectures=("MarianMTModel",),
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("config.dim", "d_model"),
        Field("config.depth", "encoder_layers"),
        Field("decoder_depth", "decoder_layers"),
        Field("config.heads", "encoder_attention_heads"),
        Field("config.ffn_dim", "encoder_ffn_dim"),
        Field("config.max_tokens", "max_position_embeddings", 1024),
        Field("config.activation", "activation_function", "gelu", ACTIVATIONS),
        Field("config.dropout", "dropout", 0.1),
        Field("config.attention_dropout", "attention_dropout", 0.0),
        Field("config.ffn_dropout", "activation_dropout", 0.0),
        Field("scale_embeddings", "scale_embedding", False),
        Field("tie_embeddings", "tie_word_embeddings", True),
        Field("bos_id", "decoder_start_token_id", 58_100),
        Field("forbidden_id", "pad_token_id", 58_100),
    ),
    constants={
        "config.norm_order": "post",
        "config.position": "sinusoidal",
        "output_bias": True,
    },
    fixed={
        "is_encoder_decoder": True,
        "is_decoder": False,
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
        "static_position_embeddings": True,
    },
    ignored=(r"\.embed_positions\.weight$",),  # sines, which some files hold
    names=names,
    detect=arguments,
    finish=written,
)
