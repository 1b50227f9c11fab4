"""A sentence about a picture: patches in front of an encoder-decoder (Vinyals et al. 2015, with a Transformer
for both halves: Cornia et al. 2020; as Xu et al. 2015 the decoder attends to the picture's parts)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from family.core.config import TransformerConfig
from family.core.transformer import Transformer
from family.heads.classifier import PoolConfig
from family.heads.language_model import language_model_head
from family.inputs.patches import PatchConfig, PatchEmbedding, over_patches
from family.inputs.text import TextEmbedding
from family.models.encoder_decoder import EncoderDecoder, decoder_of
from family.models.examples import CAPTIONED
from family.models.member import member
from family.models.vit import ViT


@member(
    task="Captioning",
    reads=("pictures", "text"),
    inputs=CAPTIONED,
    example={
        "vocab_size": 40,
        "config": TransformerConfig(dim=16, depth=2, heads=2, position="learned", max_tokens=16),
        "image_size": 16,
        "patch_size": 8,
    },
    variants=(
        {"patches": PatchConfig(class_token=False, interpolation="aligned")},
        {"config": TransformerConfig(dim=16, depth=2, heads=2, position="rotary", max_tokens=16)},
    ),
)
class Captioner(EncoderDecoder):
    """An :class:`~family.models.encoder_decoder.EncoderDecoder` from patches to text: the source is
    ``pixel_values (batch, channels, height, width)``, its mask ``(batch, height, width)``.

    Args:
        vocab_size: tokens of the vocabulary; the head shares their table.
        config: the encoder's stack, over patches.
        decoder_config: the decoder's, causal and with cross-attention to the encoder's width; None is
            the encoder's with these.
        decoder_depth: its depth, where that is all that differs.
        image_size, patch_size: pixels, ``side`` or ``(height, width)``.
        patches: the tokens before patches, their stem, and where they stand.
        bos_id: the token that decoding starts from.

    Raises:
        ValueError: stacks that do not go together, or what the parts refuse.
    """

    def __init__(
        self,
        vocab_size: int,
        config: TransformerConfig,
        decoder_config: TransformerConfig | None = None,
        *,
        decoder_depth: int | None = None,
        image_size: int | Sequence[int] = 224,
        patch_size: int | Sequence[int] = 16,
        patches: PatchConfig = PatchConfig(class_token=False),
        bos_id: int = 1,
    ) -> None:
        decoder = decoder_of(config, decoder_config, decoder_depth, type(self).__name__)
        source = PatchEmbedding(config, image_size, patch_size, patches)
        target = TextEmbedding(vocab_size, decoder)
        super().__init__(
            source,
            Transformer(over_patches(config)),
            target,
            Transformer(decoder),
            language_model_head(decoder.dim, vocab_size, bias=False, tied=target.tokens),
            bos_id=bos_id,
        )
        self.config, self.decoder_config = config, decoder
        self.vocab_size, self.image_size, self.patches = vocab_size, source.image_size, patches

    @torch.no_grad()
    def vision_tower(self) -> ViT:
        """A copy of patches and encoder as a :class:`~family.models.vit.ViT` without classes: who has learnt to
        describe pictures sees their parts (Tschannen et al. 2023, Image Captioners Are Scalable Vision Learners Too)."""
        source: Any = self.source_embedding
        pooling = PoolConfig("mean", norm_after=False)
        size, side = self.image_size, source.patch_size
        vit = ViT(0, self.config, size, side, patches=self.patches, pooling=pooling)
        vit.embedding.load_state_dict(source.state_dict())
        vit.transformer.load_state_dict(self.encoder.state_dict())
        return vit.train(self.training)
