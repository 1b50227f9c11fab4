"""Pictures and sentences to say of them."""

from __future__ import annotations

import re

from family.losses.language_model import IGNORE
from tasks.data.pairs import Batch, PairBatches, ShapePairs
from tasks.data.sampling import Pick
from tasks.data.shape_claims import is_so
from tasks.data.text_to_image import TextToImageData

SHAPES_FILE = re.compile(r"shapes-(\w+)-(\d+)")


class CaptionBatches(PairBatches):
    """Sentences as a decoder is fed them, and what it is to answer."""

    def __getitems__(self, picks: list[Pick]) -> Batch:
        batch = super().__getitems__(picks)
        ids, mask = batch.pop("input_ids"), batch.pop("mask")
        answers = ids.masked_fill(~mask, IGNORE)
        return {**batch, "target": ids[:, :-1], "labels": answers[:, 1:]}


class CaptioningData(TextToImageData):
    """As :class:`~tasks.data.text_to_image.TextToImageData`: no sentence loses its end.

    A batch:

    - ``pixel_values (batch, 3, height, width)`` float32: -1 to 1;
    - ``target (batch, tokens)`` int64: <bos> sentence, padded at the right;
    - ``labels (batch, tokens)`` int64: sentence <eos>, -100 where there is none;
    - ``picture_ids (batch,)`` int64: equal over the split where the picture is the same;
    - ``caption_ids (batch,)`` int64: equal over the split where the sentence is the same;
    - ``caption``: list of the sentences; ``file``: list of the pictures' names.

    Args:
        options: of :class:`~tasks.data.text_to_image.TextToImageData`.
    """

    task = "Captioning"
    batches = CaptionBatches

    def is_true(self, file: str, text: str) -> bool | None:
        """Whether all that a sentence says of a picture of the built-in world is so; of one of another form
        nothing is. None where nobody knows."""
        named = SHAPES_FILE.fullmatch(file)
        pairs = self.pairs(named[1]) if named is not None and self.root is None else None
        if named is None or not isinstance(pairs, ShapePairs):
            return None
        scene = pairs.scenes[int(named[2])]
        return is_so(text, scene.objects, scene.background)
