"""Captioning: a picture in, a sentence about it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor, nn

from family.inference.captions import written
from tasks.errors import UserError, at_least
from tasks.runs.gathering import gather
from tasks.training.caption_scores import caption_scores
from tasks.training.pictures import BAD, GOOD, PLAIN, sheet, to_picture
from tasks.training.token_task import TokenTask

SHOWN = 12
"""Pictures of the sheet."""


class Said(NamedTuple):
    """Of a picture: its number, its sentence and the true one, and whether what is said is so; ``begin`` is what
    the model was given of it."""

    picture: Any
    file: str
    made: str
    true: str
    right: bool | None
    pixels: Image.Image | None
    begin: str = ""


class Captioning(TokenTask):
    """Label-smoothed cross-entropy of sentences; BLEU-4 and CIDEr of those that are decoded, against all that are
    known of a picture, see :mod:`tasks.training.caption_scores`. On the built-in world also ``true``, the share
    of sentences whose every claim is right.

    A batch has ``pixel_values (batch, channels, height, width)``, ``target`` (what the decoder is fed) and
    ``labels`` (what it is to answer, -100 where nothing), ``(batch, tokens)``; to be scored and shown also
    ``caption`` and ``file``, lists, and ``picture_ids (batch)``, equal where the picture is the same: it is
    decoded once, or once for each ``begin``, a list of what sentences begin with. Scores are then of each such
    beginning, too: ``de/cider``.

    Args:
        model: the model, or what builds it from the size of the vocabulary and of pictures.
        beams: of the test's beam search; validation decodes greedily, which is faster.
        options: of :class:`~tasks.training.token_task.TokenTask` and :class:`~tasks.training.task.Task`.
    """

    monitor = ("val/cider", "max")
    fields = ("pixel_values", "target", "labels")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        beams: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        at_least(1, of="model.", beams=beams)
        self.beams = beams
        self.said: list[Said] = []
        self.decoded: dict[Any, str] = {}
        """Sentences of this split, by the numbers of pictures and what they begin with."""

    def monitor_on(self, data: Any) -> tuple[str, str]:
        """What chooses the best checkpoint: the share of sentences that are so, where that is known. How near they
        are to one of the many that would be so fell where more came to be so."""
        return ("val/true", "max") if getattr(data, "judges", False) else self.monitor

    def logits(self, batch: dict[str, Any], **asked: Any) -> Tensor:
        return self.model(batch["pixel_values"], batch["target"], **asked)

    def write(self, pixel_values: Tensor, beams: int, begin: str = "") -> list[str]:
        """A sentence of each picture.

        Args:
            begin: what it begins with, which is given and no part of the answer.

        Raises:
            UserError: nobody has a tokenizer to write them with.
        """
        tokenizer = self.tokenizer()
        if tokenizer is None:
            raise UserError("neither data nor model has a tokenizer: set model.tokenizer to one.")
        most = getattr(self.data, "max_tokens", None) or self.model.longest_target
        most = int(min(most, self.model.longest_target))
        return written(self.model, tokenizer, pixel_values, most, beams, begin)

    def _evaluate(self, batch: dict[str, Any], split: str, beams: int) -> list[str]:
        self.evaluate(batch, split)
        if "caption" not in batch or self.tokenizer() is None:
            return []
        first = len(self.said)
        files = batch.get("file") or [str(first + i) for i in range(len(batch["caption"]))]
        numbers = batch["picture_ids"].tolist() if "picture_ids" in batch else files
        begins = batch.get("begin") or [""] * len(files)
        asked = list(zip(numbers, begins, strict=True))
        for begin in dict.fromkeys(begins):
            new = [
                i
                for i, one in enumerate(asked)
                if one[1] == begin and one not in self.decoded and one not in asked[:i]
            ]
            if new:
                made = self.write(batch["pixel_values"][new], beams, begin)
                self.decoded |= {asked[i]: text for i, text in zip(new, made, strict=True)}
        pixels = self.restored(batch["pixel_values"][:SHOWN]) if first < SHOWN else ()
        judge = getattr(self.data, "is_true", lambda file, text: None)
        for i, one in enumerate(asked):
            text, true = self.decoded[one], batch["caption"][i].removeprefix(one[1]).strip()
            shown = to_picture(pixels[i]) if i < len(pixels) else None
            right = judge(files[i], text)
            self.said.append(Said(one[0], files[i], text, true, right, shown, one[1]))
        return [self.decoded[one] for one in asked]

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self._evaluate(batch, "val", beams=1)

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By example: the picture, the sentence that was made, and the true one."""
        made = self._evaluate(batch, "test", self.beams)
        if not made:
            return {}
        rows = {"file": batch.get("file", [""] * len(made)), "made": made, "true": batch["caption"]}
        if "begin" in batch:
            rows["begin"] = batch["begin"]
        right = [one.right for one in self.said[-len(made) :]]
        return rows if None in right else {**rows, "right": right}

    def predict_step(self, batch: dict[str, Any], index: int) -> list[dict[str, Any]]:
        files = batch.get("file", [""] * len(batch["pixel_values"]))
        begins = batch.get("begin") or [""] * len(files)
        made = [""] * len(files)
        for begin in dict.fromkeys(begins):
            rows = [i for i, one in enumerate(begins) if one == begin]
            texts = self.write(batch["pixel_values"][rows], self.beams, begin)
            for i, text in zip(rows, texts, strict=True):
                made[i] = text
        return [{"file": file, "caption": text} for file, text in zip(files, made, strict=True)]

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def _score(self, split: str) -> None:
        said, self.said, self.decoded = gather(self.said), [], {}
        if not said:
            return
        begins = list(dict.fromkeys(one.begin for one in said))
        self._log_scores(f"{split}/", said)
        for begin in begins if len(begins) > 1 else ():
            name = begin.removesuffix(":")
            self._log_scores(f"{split}/{name}/", [one for one in said if one.begin == begin])
        self.samples = [
            f"{one.file} {one.begin}".strip() + f"\n    made: {one.made}\n    true: {one.true}"
            for one in said[:SHOWN]
        ]
        shown = [one for one in said if one.pixels is not None][:SHOWN]
        if shown:
            colours = [PLAIN if o.right is None else GOOD if o.right else BAD for o in shown]
            pictures = [o.pixels for o in shown if o.pixels is not None]
            self.pictures = {"captions": sheet(pictures, [o.made for o in shown], colours)}

    def _log_scores(self, place: str, said: list[Said]) -> None:
        """Log how near sentences are to those that are known of their pictures."""
        by_picture: dict[Any, list[Said]] = {}
        for one in said:
            by_picture.setdefault((one.picture, one.begin), []).append(one)
        made = [some[0].made for some in by_picture.values()]
        references = [list(dict.fromkeys(one.true for one in some)) for some in by_picture.values()]
        for name, (score, signature) in caption_scores(made, references).items():
            self.log(f"{place}{name}", score, prog_bar=f"{place}{name}" == "val/cider")
            self.signatures[f"{place}{name}"] = signature
        right = [some[0].right for some in by_picture.values()]
        if None not in right:
            self.log(f"{place}true", sum(map(bool, right)) / len(right), prog_bar=True)
