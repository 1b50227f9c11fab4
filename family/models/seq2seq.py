"""The 2017 encoder-decoder (Vaswani et al., "Attention Is All You Need")."""

from __future__ import annotations

from typing import Any

from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.heads.language_model import language_model_head
from family.inputs.text import TextEmbedding
from family.models.encoder_decoder import EncoderDecoder, decoder_of
from family.models.examples import PAIRS
from family.models.member import build, member


@member(
    task="Translation",
    reads=("text",),
    inputs=PAIRS,
    example={
        "vocab_size": 40,
        "config": TransformerConfig(dim=16, depth=2, heads=2, position="sinusoidal", max_tokens=32),
    },
    variants=(
        {"config": TransformerConfig(dim=16, depth=2, heads=2, position="rotary", max_tokens=32)},
        {"target_vocab_size": 30, "tie_embeddings": False, "output_bias": True},
    ),
)
class Seq2Seq(EncoderDecoder):
    """An :class:`~family.models.encoder_decoder.EncoderDecoder` with text on both sides.

    Args:
        vocab_size: tokens of the source vocabulary, and of the target's where it is shared.
        config: the encoder's stack.
        target_vocab_size: a vocabulary and table of its own for the target; None shares one table
            between source, target and head (section 3.4).
        decoder_depth: None is as deep as the encoder.
        tie_embeddings: the head shares the table of the target embedding.
        output_bias: a bias on the logits (Marian).
        bos_id: the token that decoding starts from.
        scale_embeddings: multiply token embeddings by sqrt(dim) (section 3.4).
        scale_outputs: divide what the head reads by sqrt(dim) (T5).
        forbidden_id: a token that generation never chooses (the padding of Marian, which has a row
            in its tables).
        decoder_config: the decoder's stack, causal and with cross-attention to the encoder's width;
            None is the encoder's with these.
        embedding_norm: a norm after both embeddings (BART).
        first_position: the number of the first position, of waves (M2M100 counts from 2).

    Raises:
        ValueError: stacks that do not go together, or one table for two widths.
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        target_vocab_size: int | None = None,
        decoder_depth: int | None = None,
        tie_embeddings: bool = True,
        output_bias: bool = False,
        bos_id: int = 1,
        scale_embeddings: bool = True,
        scale_outputs: bool = False,
        forbidden_id: int | None = None,
        decoder_config: TransformerConfig | None = None,
        embedding_norm: bool = False,
        first_position: int = 0,
    ) -> None:
        decoder = decoder_of(config, decoder_config, decoder_depth, type(self).__name__)
        if target_vocab_size is None and decoder.dim != config.dim:
            raise ValueError(
                f"{type(self).__name__}: one table cannot serve dim={config.dim} and "
                f"decoder_config.dim={decoder.dim}: give target_vocab_size."
            )
        size = target_vocab_size or vocab_size
        source, target = (
            TextEmbedding(
                count,
                stack,
                scale_embeddings,
                norm=embedding_norm,
                first_position=first_position,
            )
            for count, stack in ((vocab_size, config), (size, decoder))
        )
        if target_vocab_size is None:
            target.tokens = source.tokens
        tied = target.tokens if tie_embeddings else None
        super().__init__(
            source,
            Transformer(config),
            target,
            Transformer(decoder),
            language_model_head(decoder.dim, size, output_bias, tied=tied),
            bos_id=bos_id,
            output_factor=decoder.dim**-0.5 if scale_outputs else 1.0,
            forbidden_id=forbidden_id,
        )
        self.config, self.decoder_config, self.decoder_depth = config, decoder, decoder.depth
        self.vocab_size, self.target_vocab_size = vocab_size, target_vocab_size
        self.tie_embeddings, self.output_bias = tie_embeddings, output_bias
        self.first_position = first_position


def transformer_base(vocab_size: int = 37_000, **overrides: Any) -> Seq2Seq:
    """Table 3, "base": 6 + 6 layers, 512 wide, 8 heads, 65 M parameters.

    Args:
        overrides: arguments of :class:`Seq2Seq`, and fields of its config.
    """
    base: dict[str, Any] = {
        "activation": "relu",
        "norm_order": "post",
        "position": "sinusoidal",
        "dropout": 0.1,
        "init_std": None,
    }
    return build(Seq2Seq, {"vocab_size": vocab_size, **base, **overrides})


def transformer_small(vocab_size: int = 8_000, **overrides: Any) -> Seq2Seq:
    """3 + 3 layers, 256 wide, 4 heads, for data sets of 100,000 sentences."""
    return transformer_base(vocab_size, **{"dim": 256, "depth": 3, "heads": 4, **overrides})


def transformer_tiny(vocab_size: int = 8_000, **overrides: Any) -> Seq2Seq:
    """Wu et al. 2021: 4 + 4 layers, 128 wide, 4 heads, feed-forward 256, dropout 0.3."""
    tiny = {"dim": 128, "depth": 4, "heads": 4, "ffn_dim": 256, "dropout": 0.3}
    return transformer_base(vocab_size, **{**tiny, **overrides})
