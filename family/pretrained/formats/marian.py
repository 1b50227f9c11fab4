"""Marian (Junczys-Dowmunt et al. 2018; the OPUS-MT models), as transformers and the hub store it."""

from __future__ import annotations

from typing import Any

from family.models.seq2seq import Seq2Seq
from family.pretrained.pairs import CODING, TEXT, constants, copies, names, rates
from family.pretrained.shared_fields import token_ids
from family.pretrained.table import Field, Format


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    if config.get("share_encoder_decoder_embeddings", True):
        return {}
    return {"target_vocab_size": config.get("decoder_vocab_size") or config["vocab_size"]}


def written(model: Seq2Seq, config: dict[str, Any]) -> dict[str, Any]:
    tokens = token_ids(model)
    return {
        **tokens,
        # By default theirs ends what is cut with token 0, whatever that is.
        "forced_eos_token_id": tokens["eos_token_id"],
        "pad_token_id": model.forbidden_id,
        "decoder_vocab_size": model.target_vocab_size or model.vocab_size,
        "share_encoder_decoder_embeddings": model.target_vocab_size is None,
    }


FORMAT = Format(
    name="marian",
    member=Seq2Seq,
    model_types=("marian",),
    architectures=("MarianMTModel",),
    fields=(
        *TEXT,
        *rates(),
        Field("scale_embeddings", "scale_embedding", False),
        Field("bos_id", "decoder_start_token_id", 58_100),
        Field("forbidden_id", "pad_token_id", 58_100),
    ),
    constants={**constants(norm_order="post", position="sinusoidal"), "output_bias": True},
    fixed={
        **CODING,
        "normalize_before": False,
        "normalize_embedding": False,
        "add_final_layer_norm": False,
        "static_position_embeddings": True,
    },
    ignored=(r"\.embed_positions\.weight$",),  # sines, which some files hold
    names=names,
    detect=arguments,
    finish=written,
    unread=copies,
)
