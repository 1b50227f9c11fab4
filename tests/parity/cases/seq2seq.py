"""Encoder-decoders."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from cases.causal import VOCAB, their_loss, widened
from cases.causal import our_loss as language_model_loss
from harness import NEW_TOKENS, Batch, Case
from torch import Tensor, nn

START, PADDING = 95, 96
"""Two tokens of Marian's; in published files they are one, whose row has no gradient in theirs."""


def batch() -> Batch:
    """Three pairs of unequal length, padded at the right; long enough for T5's far buckets."""
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(2, START, (3, 20), generator=generator)
    target = torch.randint(2, START, (3, 9), generator=generator)
    mask = torch.arange(20) < torch.tensor([[20], [11], [4]])
    target_mask = torch.arange(9) < torch.tensor([[9], [5], [7]])
    return {"source": source, "target": target, "mask": mask, "target_mask": target_mask}


def ours(model: Any, batch: Batch) -> Tensor:
    return model(batch["source"], batch["target"], batch["mask"])[batch["target_mask"]]


def theirs(model: Any, batch: Batch) -> Tensor:
    output = model(
        input_ids=batch["source"],
        attention_mask=batch["mask"].long(),
        decoder_input_ids=batch["target"],
    )
    return output.logits[batch["target_mask"]]


def generate(model: Any, batch: Batch) -> Tensor:
    marian = model.config.model_type == "marian"
    tokens = model.generate(
        batch["source"],
        attention_mask=batch["mask"].long(),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        bad_words_ids=[[PADDING]] if marian else None,
    )
    return tokens[:, 1:]


def following(model: Any, batch: Batch, tokens: Tensor) -> Tensor:
    target = F.pad(tokens, (1, 0), value=model.bos_id)
    logits = model(batch["source"], target, batch["mask"])[:, -1]
    if model.forbidden_id is not None:
        logits[:, model.forbidden_id] = -math.inf
    return logits


def case(member: str, format: str, build: Any, **more: Any) -> Case:
    usual: dict[str, Any] = {
        "ours": ours,
        "theirs": widened(theirs),
        "losses": (language_model_loss, their_loss),
        "generate": widened(generate),
        "prompt": ("source", "mask"),
        "next": following,
    }
    return Case(member, format, build, batch, **{**usual, **more})


def t5(**options: Any) -> nn.Module:
    config = transformers.T5Config(
        vocab_size=VOCAB,
        d_model=32,
        d_kv=12,
        d_ff=40,
        num_layers=3,
        num_decoder_layers=2,  # their caches have no room for more than the encoder has
        num_heads=3,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=12,
        decoder_start_token_id=0,
        eos_token_id=None,
        **options,
    )
    return transformers.T5ForConditionalGeneration(config)


def t5_tied() -> nn.Module:
    """v1.1 as version 5 builds it from its config: one table, and outputs as they are."""
    return t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False)


def t5_v1_1() -> nn.Module:
    model: Any = t5_tied()
    # Published files have a table of the head's own, but a new model shares it all the same.
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def marian(**options: Any) -> Any:
    def build() -> nn.Module:
        usual: dict[str, Any] = {
            "vocab_size": VOCAB,
            "d_model": 32,
            "encoder_layers": 3,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 128,
            "activation_function": "swish",
            "scale_embedding": True,
            "pad_token_id": PADDING,
            "decoder_start_token_id": START,
            "eos_token_id": None,
            "forced_eos_token_id": None,
        }
        config = transformers.MarianConfig(**usual | options)
        return with_bias(transformers.MarianMTModel(config))

    return build


def with_bias(model: Any) -> nn.Module:
    """A bias on the logits, a constant of theirs, which is given a gradient here."""
    bias = model.final_logits_bias
    del model.final_logits_bias
    model.final_logits_bias = nn.Parameter(bias)
    return model


UNEQUAL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "encoder_layers": 3,
    "decoder_layers": 2,  # their caches have no room for more than the encoder has
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 56,
    "decoder_ffn_dim": 72,
    "max_position_embeddings": 128,
    "decoder_start_token_id": 2,
    "eos_token_id": None,
}


def bart(**options: Any) -> nn.Module:
    config = transformers.BartConfig(**UNEQUAL | {"forced_eos_token_id": None} | options)
    return with_bias(transformers.BartForConditionalGeneration(config))


def mbart(**options: Any) -> nn.Module:
    config = transformers.MBartConfig(
        **UNEQUAL
        | {"forced_eos_token_id": None, "scale_embedding": True, "activation_function": "relu"}
        | options
    )
    return with_bias(transformers.MBartForConditionalGeneration(config))


def m2m100(**options: Any) -> nn.Module:
    config = transformers.M2M100Config(**UNEQUAL | options)
    return transformers.M2M100ForConditionalGeneration(config)


SINES = ("embed_positions",)
UNEQUAL_STACKS = {"decoder_attention_heads": 2, "encoder_ffn_dim": 56, "decoder_ffn_dim": 72}
CASES = [
    case("T5", "t5", t5),
    case("T5 v1.1", "t5", t5_v1_1),
    case("T5 v1.1, one table", "t5", t5_tied),
    case("Marian", "marian", marian(), keep=SINES),
    case(
        "Marian, two vocabularies",
        "marian",
        marian(share_encoder_decoder_embeddings=False, decoder_vocab_size=VOCAB + 3),
        keep=SINES,
    ),
    case("Marian, unequal stacks", "marian", marian(**UNEQUAL_STACKS), keep=SINES),
    case("BART", "bart", bart),
    case("mBART", "mbart", mbart),
    case("M2M100, NLLB", "m2m_100", m2m100),
]
