"""Pictures and sentences to say of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from family.losses.language_model import IGNORE
from tasks.data.pairs import Batch, PairBatches, Pairs, ShapePairs
from tasks.data.shape_claims import is_so
from tasks.data.text_to_image import TextToImageData
from tasks.errors import UserError, in_short

SHAPES_FILE = re.compile(r"shapes-(\w+)-(\d+)")


class CaptionBatches(PairBatches):
    """Sentences as a decoder is fed them, and what it is to answer."""

    def batch(self, pictures: Sequence[Tensor], chosen: Sequence[int]) -> Batch:
        batch = super().batch(pictures, chosen)
        ids, mask = batch.pop("input_ids"), batch.pop("mask")
        answers = ids.masked_fill(~mask, IGNORE)
        begin = []
        if isinstance(self.pairs, Pairs):
            begin = [self.pairs.rows[i].begin for i in chosen]
        if any(begin):
            batch["begin"] = begin
        return {**batch, "target": ids[:, :-1], "labels": answers[:, 1:]}


class CaptioningData(TextToImageData):
    """As :class:`~tasks.data.text_to_image.TextToImageData`: no sentence loses its end.

    A batch:

    - ``pixel_values (batch, 3, height, width)`` float32: -1 to 1;
    - ``target (batch, tokens)`` int64: <bos> sentence, padded at the right;
    - ``labels (batch, tokens)`` int64: sentence <eos>, -100 where there is none;
    - ``picture_ids (batch,)`` int64: equal over the split where the picture is the same;
    - ``caption_ids (batch,)`` int64: equal over the split where the sentence is the same;
    - ``caption``: list of the sentences; ``file``: list of the pictures' names;
    - where there are several columns of captions ``begin``: list of what the sentences begin with.

    Args:
        options: of :class:`~tasks.data.text_to_image.TextToImageData`. Of several ``caption_column`` each
            sentence begins with its column, ``de: ein roter Kreis``; a model is given so much, and says the rest:
            in several languages, or short and long.
    """

    task = "Captioning"
    batches = CaptionBatches

    def __init__(
        self,
        root: str | None = None,
        caption_column: str | list[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, caption_column=caption_column, **options)
        several = isinstance(caption_column, list) and len(caption_column) > 1
        self.columns = dataclasses.replace(self.columns, told=several)

    @property
    def judges(self) -> bool:
        """Whether :meth:`is_true` can tell of all pictures: in the built-in world."""
        return type(self) is CaptioningData and self.root is None

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self._ends()
        for split, pairs in self._pairs.items():
            if isinstance(pairs, Pairs):
                self._check_begins(split, pairs)

    def _ends(self) -> list[int]:
        """The tokens with which each sentence begins and ends.

        Raises:
            UserError: the tokenizer puts none, or another than its end, around a text.
        """
        ends: list[int] = self.encode([""])[0][0].tolist()
        if len(ends) < 2 or ends[-1] != self._tokenizer().eos_id:
            raise UserError(
                f"data.tokenizer={self.kind!r} does not put a token before each text and its end (eos) behind, as "
                "captions need: give another, such as bpe."
            )
        return ends

    @property
    def model_arguments(self) -> dict[str, Any]:
        """As before, and ``bos_id``, with which sentences begin."""
        return {**super().model_arguments, "bos_id": self._ends()[0]}

    def _check_begins(self, split: str, pairs: Pairs) -> None:
        """Refuse a tokenizer to which what a model is given is no beginning of the whole."""
        tokenizer = self._tokenizer()
        first = {row.begin: row.text for row in reversed(pairs.rows) if row.begin}
        for begin, text in first.items():
            ids = tokenizer.encode(begin)
            if tokenizer.encode(text)[: len(ids)] != ids:
                raise UserError(
                    f"data.tokenizer joins {begin!r} with what follows in {in_short(text)} of {split}: with "
                    "several data.caption_column choose another, such as bpe."
                )

    def is_true(self, file: str, text: str) -> bool | None:
        """Whether all that a sentence says of a picture of the built-in world is so; of one of another form
        nothing is. None where nobody knows."""
        named = SHAPES_FILE.fullmatch(file)
        pairs = self.pairs(named[1]) if named is not None and self.root is None else None
        if named is None or not isinstance(pairs, ShapePairs):
            return None
        scene = pairs.scenes[int(named[2])]
        return is_so(text, scene.objects, scene.background)
