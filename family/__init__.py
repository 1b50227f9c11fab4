"""Transformer Family: one attention/block core, many members."""

from family.core.attention import Attention, record_attention
from family.core.block import Block
from family.core.config import TransformerConfig
from family.core.feedforward import FeedForward
from family.core.transformer import Transformer
from family.generation.sampling import Sampling
from family.models.clip import CLIP, clip_small, clip_vit_b16, clip_vit_b32, clip_vit_l14
from family.models.detr import DETR, detr_resnet50, detr_small
from family.models.gpt import GPT, gpt2, gpt2_large, gpt2_medium, gpt2_xl, gpt_nano, llama
from family.models.segmenter import Segmenter, segmenter_small, segmenter_tiny
from family.models.seq2seq import (
    Seq2Seq,
    transformer_base,
    transformer_small,
    transformer_tiny,
)
from family.models.vit import ViT, vit_base, vit_small, vit_tiny

__all__ = [
    "CLIP",
    "DETR",
    "GPT",
    "Attention",
    "Block",
    "FeedForward",
    "Sampling",
    "Segmenter",
    "Seq2Seq",
    "Transformer",
    "TransformerConfig",
    "ViT",
    "clip_small",
    "clip_vit_b16",
    "clip_vit_b32",
    "clip_vit_l14",
    "detr_resnet50",
    "detr_small",
    "gpt2",
    "gpt2_large",
    "gpt2_medium",
    "gpt2_xl",
    "gpt_nano",
    "llama",
    "record_attention",
    "segmenter_small",
    "segmenter_tiny",
    "transformer_base",
    "transformer_small",
    "transformer_tiny",
    "vit_base",
    "vit_small",
    "vit_tiny",
]
