"""One model for everything: translations, captions, answers, drawings, classes and boxes as rows of one
vocabulary, with one loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from family.generation.sampling import Sampling
from family.inference.drawing import as_pictures
from family.inference.unified import boxes_of, make, objects_in
from family.losses.language_model import IGNORE
from tasks.data import shapes
from tasks.data.shape_claims import is_so
from tasks.data.shape_pictures import Seen, seen
from tasks.errors import UserError
from tasks.runs.gathering import gather
from tasks.training.coco_metrics import coco_table, coco_truth
from tasks.training.image_tokens import TokenizedTask
from tasks.training.pictures import sheet
from tasks.training.reading import check_documents, packed
from tasks.training.text_scores import text_scores
from tasks.training.token_task import TokenTask

SHOWN = 8
"""Drawings of the sheet."""


class Made(NamedTuple):
    """A row of evaluation: its task, what is given in words, what was made and what is right, its scene's number,
    objects where boxes were made, and what a drawing shows."""

    task: str
    text: str
    made: str
    true: str
    number: int
    objects: list[dict[str, Any]]
    drawn: Seen | None = None


class Unified(TokenizedTask, TokenTask):
    """Cross-entropy of what is to be made; and each task by its specialist's own metric: ``translate/bleu``,
    ``caption/true`` (every claim is right), ``answer/accuracy``, ``classify/accuracy``, ``detect/map_50``,
    ``draw/true`` (every claim of the caption is so in the picture, see :mod:`tasks.data.shape_pictures`), of which
    there is a sheet.

    A batch is one of :class:`~tasks.data.unified.UnifiedData`.

    Args:
        model: the model, or what builds it from ``words``, ``picture_id`` and ``image_tokenizer``.
        options: of :class:`~tasks.training.image_tokens.TokenizedTask` (``image_tokenizer``, a run whose codes are
            learnt) and :class:`~tasks.training.token_task.TokenTask`.
    """

    fields = ("input_ids", "labels", "pixel_values")

    def __init__(
        self,
        model: Callable[[int], nn.Module] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.made: list[Made] = []

    # --- The model ---

    def configure_model(self) -> None:
        super().configure_model()
        if getattr(self.data, "isolate", False):
            check_documents(self.model, "rows are packed in training, which")
        for name, own in (("slots", "slots"), ("preprocess.size", "image_size")):
            asked: Any = self.data
            for part in name.split("."):
                asked = getattr(asked, part, None)
            if asked is not None and asked != getattr(self.model, own):
                option = "data.slots" if name == "slots" else "data.image_size"
                raise UserError(
                    f"{option} is {asked}, but the image tokenizer of the model has {own}="
                    f"{getattr(self.model, own)}: give the same."
                )

    # --- The loss ---

    def coded(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with the codes of its pictures in their places."""
        pixels = batch.get("pixel_values")
        if pixels is None or not len(pixels):
            return batch
        ids, labels, picture = batch["input_ids"], batch["labels"], self.model.picture_id
        # What is to be made is what is fed next, if it is: of a row that ends with a picture its last code is not.
        next_ids = F.pad(ids[:, 1:], (0, 1), value=IGNORE).masked_fill(labels == picture, picture)
        whole = torch.cat([ids[:, :1], next_ids], dim=1)
        whole = self.model.with_codes(whole, self.model.codes(pixels))
        fed = torch.where(ids == picture, whole[:, :-1], ids)
        made = torch.where(labels == picture, whole[:, 1:], labels)
        return {**batch, "input_ids": fed, "labels": made}

    def logits(self, batch: dict[str, Any], **asked: Any) -> Tensor:
        return self.model(batch["input_ids"], **packed(batch), **asked)

    def loss(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return super().loss(self.coded(batch))

    # --- Evaluation ---

    def evaluate(self, batch: dict[str, Any], split: str) -> dict[str, list[Any]]:
        """The loss of each task, and what is made of each row."""
        found = super().evaluate(self.coded(batch), split)
        rows = list(zip(found["loss"], found["tokens"], strict=True))
        for task in dict.fromkeys(batch.get("task", ())):
            mine = [row for row, one in zip(rows, batch["task"], strict=True) if one == task]
            count = sum(tokens for _, tokens in mine)
            loss = torch.tensor(sum(loss for loss, _ in mine) / count)
            self.log_mean({f"{split}/{task}/loss": loss}, count, prog_bar=False)
        return found

    def write(self, batch: dict[str, Any]) -> None:
        """Do what is asked for, row by row, in words."""
        if self.tokenizer() is None or "task" not in batch:
            return
        self.model.tokenizer = self.tokenizer()
        bins = self.assets()["bins"]
        has = [
            task == "draw" or bool((ids == self.model.picture_id).any())
            for task, ids in zip(batch["task"], batch["input_ids"], strict=True)
        ]
        place = [sum(has[:i]) for i in range(len(has))]
        for task in dict.fromkeys(batch["task"]):
            rows = [i for i, one in enumerate(batch["task"]) if one == task]
            if task == "draw":
                self.made += self.drawings(
                    [batch["text"][i] for i in rows], batch["number"][rows[0]]
                )
                continue
            pixels = None
            if has[rows[0]]:
                pixels = batch["pixel_values"][[place[i] for i in rows]]
            found = make(self.model, task, [batch["text"][i] for i in rows], pixels)
            for i, ids in zip(rows, found, strict=True):
                objects = boxes_of(self.model, ids, bins) if task == "detect" else []
                said = self.model.tokenizer.decode(ids)
                given, true = batch["text"][i], batch["answer"][i]
                self.made.append(Made(task, given, said, true, batch["number"][i], objects))

    def drawings(self, texts: list[str], seed: int) -> list[Made]:
        """Draw captions, and look at what was drawn."""
        generator = torch.Generator(self.device).manual_seed(seed)
        ids = make(self.model, "draw", texts, sampling=Sampling(1.0), generator=generator)
        drawn = self.model.drawn(torch.tensor(ids, device=self.device))
        shown = [seen(picture) for picture in as_pictures(self.data.preprocess, drawn)]
        return [
            Made("draw", text, in_words(one), text, -1, [], one)
            for text, one in zip(texts, shown, strict=True)
        ]

    def validation_step(self, batch: dict[str, Any], index: int) -> None:
        self.evaluate(batch, "val")
        self.write(batch)

    def test_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        """By row: its task, what is given in words, what was made and what is right."""
        first = len(self.made)
        self.evaluate(batch, "test")
        self.write(batch)
        some = self.made[first:]
        return {
            "task": [one.task for one in some],
            "source": [one.text for one in some],
            "made": [one.made for one in some],
            "true": [one.true for one in some],
        }

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def _score(self, split: str) -> None:
        made, self.made = gather(self.made), []
        by_task: dict[str, list[Made]] = {}
        for one in made:
            by_task.setdefault(one.task, []).append(one)
        scores = {
            f"{task}/{name}": value
            for task, rows in by_task.items()
            for name, value in self.scores(task, rows, split).items()
        }
        for name, value in scores.items():
            self.log(f"{split}/{name}", value)
        self.samples = [
            f"{one.task}: {one.text}\n    made: {one.made}\n    true: {one.true}"
            for rows in by_task.values()
            for one in rows[:3]
        ]
        if "draw" in getattr(self.data, "tasks", ()):
            self._show(split)

    def scores(self, task: str, rows: list[Made], split: str) -> dict[str, float]:
        """What a task's rows are worth, by its specialist's metric."""
        if task == "translate":
            made, true = [one.made for one in rows], [one.true for one in rows]
            found = text_scores([m.replace(" ,", ",") for m in made], true, "en")["bleu"]
            self.signatures[f"{split}/translate/bleu"] = found[1]
            return {"bleu": found[0]}
        if task == "detect":
            return {"map_50": boxes_score(rows, self.assets()["bins"])}
        if task == "caption":
            right = [self.is_true(one, split) for one in rows]
            return {"true": sum(right) / len(right)}
        if task == "draw":
            return {"true": sum(map(is_drawn, rows)) / len(rows)}
        return {"accuracy": sum(one.made == one.true for one in rows) / len(rows)}

    def is_true(self, one: Made, split: str) -> bool:
        """Whether every claim of a caption is right."""
        if not hasattr(self.data, "given"):
            return False
        scene = self.data.given(split, one.number).scene
        return is_so(one.made, scene.objects, scene.background)

    @torch.no_grad()
    def _show(self, split: str) -> None:
        """Drawings of some captions, the same at each validation."""
        count = self.data.count(split)
        first = self.data.tasks.index("draw") * (count // len(self.data.tasks))
        texts = [self.data.given(split, first + i).text for i in range(SHOWN)]
        ids = make(self.model, "draw", texts)
        drawn = self.model.drawn(torch.tensor(ids, device=self.device))
        pictures = as_pictures(self.data.preprocess, drawn)
        self.pictures = {"drawings": sheet(pictures, texts)}


def is_drawn(one: Made) -> bool:
    """Whether every claim of a drawing's caption is so in it."""
    return one.drawn is not None and is_so(one.text, one.drawn.objects, one.drawn.background)


def in_words(one: Seen) -> str:
    """What a drawing shows."""
    things = [
        f"{shapes.english(thing, 1)} {shapes.PLACES[thing.row, thing.column][0]}"
        for thing in one.objects
    ]
    return ", ".join(things) or f"nothing but a {one.background} background"


def boxes_score(rows: list[Made], bins: int = 48) -> float:
    """mAP at an overlap of a half, by COCO's rules; all objects that are written are equally sure."""
    names, targets, found = list(shapes.SHAPES), [], []
    for number, one in enumerate(rows):
        true = objects_in(one.true.split(), bins)
        boxes = torch.tensor([each["box"] for each in true])
        low, high = boxes[:, :2], boxes[:, 2:]
        targets.append(
            {
                "image_id": torch.tensor(number),
                "size": torch.tensor([100, 100]),
                "labels": torch.tensor([names.index(each["label"]) for each in true]),
                "boxes": torch.cat([(low + high) / 2, high - low], dim=1),
            }
        )
        for made in one.objects:
            if made["label"] in names:
                x0, y0, x1, y1 = (100 * side for side in made["box"])
                kind = names.index(made["label"])
                box = [x0, y0, x1 - x0, y1 - y0]
                found.append({"image_id": number, "category_id": kind, "bbox": box, "score": 1.0})
    return coco_table(coco_truth(targets), found)["map_50"] if found else 0.0
