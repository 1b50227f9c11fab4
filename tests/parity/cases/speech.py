"""Speech to text."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import transformers
from cases.causal import VOCAB, their_loss, widened
from cases.causal import our_loss as language_model_loss
from harness import NEW_TOKENS, Batch, Case
from torch import Tensor, nn

FRAMES, MELS, START = 26, 10, 3


def batch() -> Batch:
    """Frames of three sounds, and targets of unequal length; Whisper knows no mask of sounds."""
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(4, VOCAB, (3, 9), generator=generator)
    return {
        "source": torch.randn(3, MELS, FRAMES, generator=generator),
        "target": target,
        "target_mask": torch.arange(9) < torch.tensor([[9], [5], [7]]),
    }


def ours(model: Any, batch: Batch) -> Tensor:
    return model(batch["source"], batch["target"])[batch["target_mask"]]


def theirs(model: Any, batch: Batch) -> Tensor:
    output = model(batch["source"], decoder_input_ids=batch["target"])
    return output.logits[batch["target_mask"]]


def generate(model: Any, batch: Batch) -> Tensor:
    """As any model of theirs: Whisper's own adds tokens of the vocabulary of OpenAI."""
    tokens = transformers.GenerationMixin.generate(
        model, batch["source"], max_new_tokens=NEW_TOKENS, do_sample=False
    )
    return tokens[:, 1:]


def following(model: Any, batch: Batch, tokens: Tensor) -> Tensor:
    return model(batch["source"], F.pad(tokens, (1, 0), value=model.bos_id))[:, -1]


def whisper(**options: Any) -> nn.Module:
    usual: dict[str, Any] = {
        "vocab_size": VOCAB,
        "num_mel_bins": MELS,
        "d_model": 32,
        "encoder_layers": 3,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 56,
        "decoder_ffn_dim": 72,
        "max_source_positions": FRAMES // 2,
        "max_target_positions": 80,
        "decoder_start_token_id": START,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": None,
        "begin_suppress_tokens": None,
    }
    config = transformers.WhisperConfig(**usual | options)
    return transformers.WhisperForConditionalGeneration(config)


CASES = [
    Case(
        "Whisper",
        "whisper",
        whisper,
        batch,
        ours,
        widened(theirs),
        losses=(language_model_loss, their_loss),
        generate=widened(generate),
        prompt=("source",),
        next=following,
        keep=("encoder.embed_positions",),
        float32=2e-5,
        note="float32 gradients are 6e-6 off their float64 ones, those of the reference 4e-6",
    )
]
