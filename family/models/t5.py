"""T5: text to text with relative positions (Raffel et al. 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from family.core.attention import Attention
from family.core.config import TransformerConfig
from family.core.position import RelativeBias
from family.models.examples import PAIRS
from family.models.member import build, member
from family.models.seq2seq import Seq2Seq


@member(
    task="Translation",
    reads=("text",),
    inputs=PAIRS,
    example={
        "vocab_size": 40,
        "config": TransformerConfig(
            dim=16, depth=2, heads=2, norm="rmsnorm", position="relative", max_tokens=32
        ),
    },
    variants=({"tie_embeddings": False, "decoder_depth": 1},),
    # Trained in bfloat16: what its layers add up to is in no bounds of theirs.
    float16=False,
)
class T5(Seq2Seq):
    """A :class:`Seq2Seq` whose embeddings are not scaled and whose start makes up for its attention
    without 1/sqrt(d) (section 2.1). The published code drops out after the final norms too.

    Args:
        vocab_size: tokens in the vocabulary, one for source and target.
        config: the encoder's stack, as :func:`t5_small` or :func:`t5_v1_1_small` has it; the decoder
            has the same with causal and cross-attention.
        decoder_depth: None is as deep as the encoder.
        tie_embeddings: the head shares the table of the embedding, and reads vectors divided by
            sqrt(dim) (v1.0); or it has a table of its own, and reads them as they are (v1.1).
        bos_id: the token that decoding starts from; published checkpoints use the padding's.
        scale_outputs: whether these vectors are divided; None is where the table is shared.
        decoder_config: as :class:`Seq2Seq`'s.
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        decoder_depth: int | None = None,
        tie_embeddings: bool = True,
        bos_id: int = 0,
        scale_outputs: bool | None = None,
        decoder_config: TransformerConfig | None = None,
    ) -> None:
        self.scale_outputs = tie_embeddings if scale_outputs is None else scale_outputs
        super().__init__(
            vocab_size,
            config,
            decoder_depth=decoder_depth,
            tie_embeddings=tie_embeddings,
            bos_id=bos_id,
            scale_embeddings=False,
            scale_outputs=self.scale_outputs,
            decoder_config=decoder_config,
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise as Mesh TensorFlow does: each layer by its inputs, queries smaller still."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        for module in self.modules():
            if isinstance(module, RelativeBias):
                nn.init.normal_(module.table.weight, std=self.config.dim**-0.5)
            elif isinstance(module, Attention):
                # The missing 1/sqrt(d) of the scores.
                rows = module.heads * module.head_dim
                projection = module.query if module.cross else module.qkv
                projection.weight[:rows] *= module.head_dim**-0.5
        nn.init.normal_(self.get_parameter("source_embedding.tokens.weight"))


def t5_small(vocab_size: int = 32_128, **overrides: Any) -> T5:
    """T5 small, 60 M parameters: 6 + 6 layers, 512 wide.

    Args:
        overrides: arguments of :class:`T5`, and fields of its config.
    """
    small: dict[str, Any] = {
        "dim": 512,
        "depth": 6,
        "heads": 8,
        "activation": "relu",
        "norm": "rmsnorm",
        "norm_eps": 1e-6,
        "bias": False,
        "position": "relative",
        "attention_scale": 1.0,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "ffn_dropout": 0.1,
    }
    return build(T5, {"vocab_size": vocab_size, **small, **overrides})


def t5_base(vocab_size: int = 32_128, **overrides: Any) -> T5:
    """T5 base, 223 M parameters; overrides as :func:`t5_small`."""
    return t5_small(vocab_size, **{"dim": 768, "depth": 12, "heads": 12, **overrides})


def t5_large(vocab_size: int = 32_128, **overrides: Any) -> T5:
    """T5 large, 738 M parameters; overrides as :func:`t5_small`."""
    return t5_small(vocab_size, **{"dim": 1024, "depth": 24, "heads": 16, **overrides})


def t5_v1_1_small(vocab_size: int = 32_128, **overrides: Any) -> T5:
    """T5 v1.1 small, and Flan-T5 small, 77 M parameters: gated tanh-GELU (Shazeer 2020).

    Args:
        overrides: as :func:`t5_small`.
    """
    small = {
        "depth": 8,
        "heads": 6,
        "head_dim": 64,
        "ffn_dim": 1024,
        "activation": "gelu_tanh",
        "gated": True,
        "tie_embeddings": False,
    }
    return t5_small(vocab_size, **{**small, **overrides})


def t5_v1_1_base(vocab_size: int = 32_128, **overrides: Any) -> T5:
    """T5 v1.1 base, and Flan-T5 base, 248 M parameters; overrides as :func:`t5_small`."""
    base = {"dim": 768, "depth": 12, "heads": 12, "ffn_dim": 2048}
    return t5_v1_1_small(vocab_size, **{**base, **overrides})
