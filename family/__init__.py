"""Transformer Family: one attention/block core, many members."""

from family.baselines.cnn import CNN
from family.baselines.detectors import FasterRCNN, RetinaNet
from family.baselines.lstm_classifier import LSTMClassifier
from family.baselines.lstm_lm import LSTMLanguageModel
from family.baselines.lstm_seq2seq import LSTMSeq2Seq
from family.baselines.segmenters import FCN, DeepLab
from family.core.attention import Attention
from family.core.block import Block
from family.core.config import TransformerConfig
from family.core.feedforward import FeedForward
from family.core.init import initialise
from family.core.mask import Shared
from family.core.rotary import RotaryScaling
from family.core.transformer import Transformer
from family.generation.sampling import Sampling
from family.look import record_attention
from family.models.bert import (
    BERT,
    bert_base,
    bert_large,
    bert_mini,
    bert_small,
    bert_tiny,
    distilbert_base,
    electra_small,
    modernbert_base,
    mpnet_base,
    roberta_base,
    xlm_roberta_base,
)
from family.models.clip import CLIP, clip_small, clip_vit_b16, clip_vit_b32, clip_vit_l14
from family.models.detr import DETR, detr_resnet50, detr_small
from family.models.encoder_decoder import EncoderDecoder
from family.models.fusion import Fusion, vilt_base
from family.models.gpt import GPT, gpt2, gpt2_large, gpt2_medium, gpt2_xl, gpt_nano, llama
from family.models.segmenter import Segmenter, segmenter_small, segmenter_tiny
from family.models.sentence import SentenceEncoder
from family.models.seq2seq import (
    Seq2Seq,
    transformer_base,
    transformer_small,
    transformer_tiny,
)
from family.models.speech import SpeechToText, whisper_base, whisper_tiny
from family.models.t5 import T5, t5_base, t5_large, t5_small, t5_v1_1_base, t5_v1_1_small
from family.models.video import VideoViT, videomae_base
from family.models.vit import ViT, dinov3_vit_small, vit_base, vit_small, vit_tiny
from family.pretrained import from_pretrained, save_adapter, save_pretrained

__all__ = [
    "BERT",
    "CLIP",
    "CNN",
    "DETR",
    "FCN",
    "GPT",
    "T5",
    "Attention",
    "Block",
    "DeepLab",
    "EncoderDecoder",
    "FasterRCNN",
    "FeedForward",
    "Fusion",
    "LSTMClassifier",
    "LSTMLanguageModel",
    "LSTMSeq2Seq",
    "RetinaNet",
    "RotaryScaling",
    "Sampling",
    "Segmenter",
    "SentenceEncoder",
    "Seq2Seq",
    "Shared",
    "SpeechToText",
    "Transformer",
    "TransformerConfig",
    "ViT",
    "VideoViT",
    "bert_base",
    "bert_large",
    "bert_mini",
    "bert_small",
    "bert_tiny",
    "clip_small",
    "clip_vit_b16",
    "clip_vit_b32",
    "clip_vit_l14",
    "detr_resnet50",
    "detr_small",
    "dinov3_vit_small",
    "distilbert_base",
    "electra_small",
    "from_pretrained",
    "gpt2",
    "gpt2_large",
    "gpt2_medium",
    "gpt2_xl",
    "gpt_nano",
    "initialise",
    "llama",
    "modernbert_base",
    "mpnet_base",
    "record_attention",
    "roberta_base",
    "save_adapter",
    "save_pretrained",
    "segmenter_small",
    "segmenter_tiny",
    "t5_base",
    "t5_large",
    "t5_small",
    "t5_v1_1_base",
    "t5_v1_1_small",
    "transformer_base",
    "transformer_small",
    "transformer_tiny",
    "videomae_base",
    "vilt_base",
    "vit_base",
    "vit_small",
    "vit_tiny",
    "whisper_base",
    "whisper_tiny",
    "xlm_roberta_base",
]
