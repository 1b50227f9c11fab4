"""Speech to text: Whisper (Radford et al. 2022)."""

from __future__ import annotations

from typing import Any

from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.heads.language_model import language_model_head
from family.inputs.audio import AudioEmbedding
from family.inputs.text import TextEmbedding
from family.models.encoder_decoder import EncoderDecoder, decoder_of
from family.models.examples import SOUND
from family.models.member import build, member

TARGET = {"position": "learned", "max_tokens": 448}
"""How Whisper's decoder differs from its encoder."""
START = 50_258
"""Where the decoding of many languages starts."""


@member(
    task="SpeechRecognition",
    reads=("sound",),
    inputs=SOUND,
    example={
        "vocab_size": 40,
        "config": TransformerConfig(dim=16, depth=2, heads=2, position="timing", max_tokens=16),
        "mels": 8,
    },
)
class SpeechToText(EncoderDecoder):
    """An :class:`~family.models.encoder_decoder.EncoderDecoder` from log-mel frames to text: the source
    is ``(batch, mels, frames)``, its mask ``(batch, frames)``, and two frames make a token.

    Whisper was trained without a mask, on silence that fills up 30 seconds.

    Args:
        vocab_size: tokens of the target's vocabulary; the head shares their table.
        config: the encoder's stack; ``max_tokens`` is half the most frames.
        decoder_config: the decoder's, causal and with cross-attention to the encoder's width; None is
            the encoder's with these, and learned positions for 448 tokens.
        mels: bands of the frames, as :class:`~family.inputs.audio.LogMel` makes them.
        bos_id: the token that decoding starts from.

    Raises:
        ValueError: stacks that do not go together.
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        decoder_config: TransformerConfig | None = None,
        mels: int = 80,
        bos_id: int = 1,
    ) -> None:
        decoder = decoder_of(config, decoder_config, None, type(self).__name__)
        if decoder_config is None:
            decoder = decoder.replace(**TARGET)
        target = TextEmbedding(vocab_size, decoder)
        super().__init__(
            AudioEmbedding(config, mels),
            Transformer(config),
            target,
            Transformer(decoder),
            language_model_head(decoder.dim, vocab_size, bias=False, tied=target.tokens),
            bos_id=bos_id,
        )
        self.config, self.decoder_config = config, decoder
        self.vocab_size, self.mels = vocab_size, mels


def whisper_tiny(vocab_size: int = 51_865, **overrides: Any) -> SpeechToText:
    """Whisper tiny, 37 M parameters: 4 + 4 layers, 384 wide; of its vocabulary for many languages.

    Args:
        overrides: fields of :class:`TransformerConfig`, for both stacks, and arguments of
            :class:`SpeechToText`.
    """
    tiny: dict[str, Any] = {
        "dim": 384,
        "depth": 4,
        "heads": 6,
        "key_bias": False,
        "position": "timing",
        "max_tokens": 1500,
    }
    if vocab_size > START:
        tiny["bos_id"] = START
    return build(SpeechToText, {"vocab_size": vocab_size, **tiny, **overrides})


def whisper_base(vocab_size: int = 51_865, **overrides: Any) -> SpeechToText:
    """Whisper base, 72 M parameters: 6 + 6 layers, 512 wide; overrides as :func:`whisper_tiny`."""
    return whisper_tiny(vocab_size, **{"dim": 512, "depth": 6, "heads": 8, **overrides})
