"""Whisper (Radford et al. 2022) and what was distilled from it, as transformers and the hub store them."""

from __future__ import annotations

from typing import Any

from family.models.speech import SpeechToText
from family.pretrained.pairs import CODING, OLD, STACKS, constants, rates, start
from family.pretrained.shared_fields import BLOCK, CROSS, token_ids
from family.pretrained.table import Field, Format, Names, blocks

BIASES: Names = {
    "self_attention.sublayer.query_bias": "self_attn.q_proj.bias",
    "self_attention.sublayer.value_bias": "self_attn.v_proj.bias",
}
"""Keys have none."""
NAMES: Names = {
    "source_embedding.conv1": "model.encoder.conv1",
    "source_embedding.conv2": "model.encoder.conv2",
    "source_embedding.position.table": "model.encoder.embed_positions.weight",
    "target_embedding.tokens": "model.decoder.embed_tokens",
    "target_embedding.position": "model.decoder.embed_positions",
    "encoder.norm": "model.encoder.layer_norm",
    "decoder.norm": "model.decoder.layer_norm",
    "head": "proj_out",
    **blocks("encoder", "model.encoder.layers.{}", {**BLOCK, **BIASES}),
    **blocks(
        "decoder",
        "model.decoder.layers.{}",
        {
            **BLOCK,
            **BIASES,
            **CROSS,
            "cross_attention.sublayer.value_bias": "encoder_attn.v_proj.bias",
        },
    ),
}


def arguments(config: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {"bos_id": start(config, 50_257)}


def written(model: SpeechToText, config: dict[str, Any]) -> dict[str, Any]:
    # By default theirs never begins with two tokens of OpenAI's vocabulary.
    return {**token_ids(model), "begin_suppress_tokens": None}


FORMAT = Format(
    name="whisper",
    member=SpeechToText,
    model_types=("whisper",),
    architectures=("WhisperForConditionalGeneration", "WhisperModel"),
    fields=(
        Field("vocab_size", "vocab_size"),
        *STACKS,
        *rates(dropout=0.0),
        Field("mels", "num_mel_bins", 80),
        Field("config.max_tokens", "max_source_positions", 1500),
        Field("decoder_config.max_tokens", "max_target_positions", 448),
        Field("bos_id", "decoder_start_token_id", 50_257),
    ),
    constants=constants(norm_order="pre", key_bias=False)
    | {"config.position": "timing", "decoder_config.position": "learned"},
    fixed={**CODING, "tie_word_embeddings": True},
    prefix="model.",
    ignored=OLD,
    names=NAMES,
    detect=arguments,
    finish=written,
)
