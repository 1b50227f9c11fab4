"""Transformer Family: one attention/block core, many members."""

from family.core.attention import Attention, record_attention
from family.core.block import Block
from family.core.config import TransformerConfig
from family.core.feedforward import FeedForward
from family.core.transformer import Transformer
from family.generation.sampling import Sampling
from family.models.gpt import GPT, gpt2, gpt2_large, gpt2_medium, gpt2_xl, gpt_nano, llama
from family.models.seq2seq import (
    Seq2Seq,
    transformer_base,
    transformer_small,
    transformer_tiny,
)

__all__ = [
    "GPT",
    "Attention",
    "Block",
    "FeedForward",
    "Sampling",
    "Seq2Seq",
    "Transformer",
    "TransformerConfig",
    "gpt2",
    "gpt2_large",
    "gpt2_medium",
    "gpt2_xl",
    "gpt_nano",
    "llama",
    "record_attention",
    "transformer_base",
    "transformer_small",
    "transformer_tiny",
]
