"""One model for everything: words, pictures and places in one vocabulary, and a word for each task (Chen et al. 2022,
Pix2Seq; Lu et al. 2022, Unified-IO; Chameleon 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from family.core.config import TransformerConfig
from family.inputs.codebook import CodebookConfig
from family.models.examples import TEXT
from family.models.gpt import GPT
from family.models.member import member
from family.models.owned_tokenizer import owned_tokenizer, stay_frozen


@member(
    task="Unified",
    reads=("text", "pictures"),
    inputs=TEXT,
    example={
        "words": 20,
        "config": TransformerConfig(
            dim=16, depth=2, heads=2, causal=True, position="rotary", max_tokens=32
        ),
        "image_tokenizer": {
            "image_size": 16,
            "downsampling": 8,
            "patch_size": 4,
            "width": 8,
            "depth": 1,
            "codebook": CodebookConfig(size=20, dim=4),
        },
        "picture_id": 5,
    },
)
class Omni(GPT):
    """A :class:`~family.models.gpt.GPT` over words, behind which stand the codes of pictures.

    A row is ``<bos> <task> what is given <sep> what is to be made <eos>``; places in a picture are words too.

    Args:
        words: tokens of the text's vocabulary, words of tasks and places among them.
        config: the stack; must be causal.
        image_tokenizer: arguments of the :class:`~family.models.image_tokenizer.ImageTokenizer` whose codes they
            are; it does not learn here.
        picture_id: the word that holds a code's place until :meth:`with_codes` puts it there.

    Raises:
        ValueError: what the parts refuse.
    """

    def __init__(
        self,
        words: int,
        config: TransformerConfig,
        *,
        image_tokenizer: Mapping[str, Any] | None = None,
        picture_id: int = 0,
    ) -> None:
        if image_tokenizer is None:
            raise ValueError(
                "Omni sees and draws in the tokens of an image tokenizer: give image_tokenizer, its arguments; "
                "in training, where that comes from, as model.image_tokenizer."
            )
        pictures: Any = owned_tokenizer(image_tokenizer, None)
        super().__init__(words + pictures.vocab_size, config)
        self.words, self.picture_id = words, picture_id
        self.image_tokenizer: Any = pictures
        self.image_size = pictures.image_size
        self.slots = pictures.grid[0] * pictures.grid[1]
        """Tokens of a picture."""

    def train(self, mode: bool = True) -> Omni:
        """The image tokenizer stays as it is."""
        super().train(mode)
        stay_frozen(self.image_tokenizer)
        return self

    @torch.no_grad()
    def codes(self, pixel_values: Tensor) -> Tensor:
        """Pictures as tokens of this vocabulary, ``(batch, slots)``."""
        return self.image_tokenizer.tokenize(pixel_values) + self.words

    def with_codes(self, tokens: Tensor, codes: Tensor) -> Tensor:
        """Rows ``(batch, tokens)`` with the codes ``(pictures, slots)`` in the places that are kept for them, in
        their order.

        Raises:
            ValueError: not as many places.
        """
        places = tokens == self.picture_id
        if int(places.sum()) != codes.numel():
            raise ValueError(
                f"{len(codes)} pictures of {self.slots} tokens need {codes.numel()} places, not "
                f"{int(places.sum())}."
            )
        return tokens.masked_scatter(places, codes)

    def drawn(self, tokens: Tensor) -> Tensor:
        """The pictures ``(batch, 3, height, width)`` of tokens ``(batch, slots)``; one that is no code is taken for
        the first."""
        codes = (tokens - self.words).clamp(min=0, max=self.image_tokenizer.vocab_size - 1)
        return self.image_tokenizer.decode(codes)
