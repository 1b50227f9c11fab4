"""Pictures with sentences to draw them from."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch.utils.data import DataLoader

from family.inputs.encode import UNLIMITED
from tasks.data.image_text import ImageTextData
from tasks.data.images import kept
from tasks.data.pairs import ShapePairs, encode_texts
from tasks.data.shapes import COLOURS, SHAPES
from tasks.errors import UserError, in_short


class TextToImageData(ImageTextData):
    """Pictures and sentences as :class:`~tasks.data.image_text.ImageTextData` has them, for a model that draws:
    pixels are in -1..1, pictures are as they are, and no sentence loses its end.

    A batch:

    - ``pixel_values (batch, 3, height, width)`` float32: -1 to 1;
    - ``input_ids (batch, tokens)`` int64: <bos> sentence <eos>, padded at the right;
    - ``mask (batch, tokens)`` bool: True = a token;
    - ``picture_ids (batch,)`` int64: equal over the split where the picture is the same;
    - ``caption_ids (batch,)`` int64: equal over the split where the sentence is the same;
    - ``caption``: list of the sentences; ``file``: list of the pictures' names;
    - with the built-in world ``labels (batch,)`` int64: their classes.

    Args:
        held_out: of the built-in world, things that no picture has in training and validation, "purple star";
            in test all pictures have one.
        crop, options: as :class:`~tasks.data.image_text.ImageTextData`'s; a sentence of over ``max_tokens`` is
            refused, or with ``on_bad="skip"`` left out.
    """

    task = "TextToImage"

    def __init__(
        self,
        root: str | None = None,
        image_size: tuple[int, int] = (48, 48),
        crop: float = 1.0,
        held_out: tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        super().__init__(root, image_size=image_size, crop=crop, **options)
        self.preprocess = dataclasses.replace(self.preprocess, mean=(0.5,) * 3, std=(0.5,) * 3)
        for thing in held_out:
            colour, _, shape = thing.partition(" ")
            if root is not None or colour not in COLOURS or shape not in SHAPES:
                raise UserError(
                    f"data.held_out={thing!r} must be a colour and a shape of the built-in world, such as "
                    "'purple star', without data.root."
                )
        self.held_out = frozenset(held_out)
        self._whole: set[str] = set()
        """Splits all of whose sentences fit."""

    def shape_pairs(self, count: int, size: int, split: str) -> ShapePairs:
        return ShapePairs(count, size, self.seed, split, self.held_out)

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        for split in self._pairs:
            self._check_lengths(split)

    def _check_lengths(self, split: str) -> None:
        """Refuse sentences that are too long, or leave them out.

        Raises:
            UserError: there is one, with ``on_bad="stop"``.
        """
        if split in self._whole:
            return
        self._whole.add(split)
        pairs = self.pairs(split)
        lengths = encode_texts(self._tokenizer(), pairs.texts, UNLIMITED)[1].sum(1).tolist()
        bad = [
            f"{pairs.where(i)}: {in_short(pairs.texts[i])} has {length} tokens, over "
            f"data.max_tokens={self.max_tokens}, and nothing is cut off"
            if length > self.max_tokens
            else None
            for i, length in enumerate(lengths)
        ]
        good = kept(bad, self.on_bad)
        if len(good) < len(lengths):
            self._pairs[split] = pairs.only(good)

    def loader(self, split: str) -> DataLoader[Any]:
        self._check_lengths(split)
        loader = super().loader(split)
        # A pass over a loader begins with a random number. Were it torch's own, what training draws (which
        # captions are left out) would depend on how often it validates.
        loader.generator = torch.Generator().manual_seed(self.order_seed)
        return loader
