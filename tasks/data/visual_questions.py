"""Questions about pictures."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from family.inputs.encode import UNLIMITED, encode_captions
from family.inputs.pictures import WHITE
from family.inputs.preprocess import Preprocess
from tasks.data import shapes
from tasks.data.captions import IMAGE_COLUMNS, json_rows, picture_folder
from tasks.data.images import OnBad, check_images, picture_size, read_image, read_those
from tasks.data.sampling import ExampleBatches, Pick, batch_loader
from tasks.data.stored import Stored
from tasks.data.text_data import TextData
from tasks.errors import UserError, closest, in_short, user_errors

Batch = dict[str, Any]
BEGINS = {
    "how many": "count",
    "what colour": "colour",
    "is there": "existence",
    "is the": "size",  # after the one that begins so too
    "where is": "place",
}
"""How the built-in questions of each kind begin; the first that fits counts."""


class VisualQuestion(NamedTuple):
    """A question about a picture and its answer."""

    question: str
    answer: str
    kind: str
    """Empty where nobody says it."""
    picture: Path | shapes.Scene
    file: str
    """The picture's name."""
    where: str
    line: int
    """The number of its row in the file, from 0 on."""


class VisualQuestionsData(TextData[VisualQuestion]):
    """Questions about pictures; the answers of the training split are classes, in the order of how often they
    are given.

    A batch:

    - ``pixel_values (batch, 3, height, width)`` float32: normalised;
    - ``input_ids (batch, tokens)`` int64: the question between the tokenizer's special tokens, padded at the
      right; none is cut;
    - ``mask (batch, tokens)`` bool: True = a token;
    - ``labels (batch,)`` int64: ids of the answers, -100 of one that is no class;
    - ``question``, ``answer``, ``kind``, ``file``: lists; ``line``: list of the rows' numbers in their file.

    Args:
        root: a folder with JSON lines for each split, ``{"image": ..., "question": ..., "answer": ...}``, with
            the picture's path beside the file and, by choice, a ``kind``; or one such file of everything,
            which is divided by pictures. None is the built-in world of shapes: how many, which colour, how
            large, where, and whether there is one.
        image_size: of all pictures, ``(height, width)``.
        without: what the model is not shown, to see what the other half alone can do: pictures are grey, or
            questions empty.
        unknown_answers: "stop" at an answer in validation or test that training never gave, or count it as
            "wrong".
        on_bad: "stop" at a picture that cannot be read, or "skip" it with a warning.
        options: of :class:`~tasks.data.text_data.TextData`.
    """

    task = "VisualQuestions"
    decided: tuple[str, ...] = (*TextData.decided, "image_size", "without")
    endings, kind_of_file = (".jsonl",), "file of questions"

    def __init__(
        self,
        root: str | None = None,
        image_size: tuple[int, int] = (48, 48),
        without: Literal["picture", "question"] | None = None,
        unknown_answers: Literal["stop", "wrong"] = "stop",
        on_bad: OnBad = "stop",
        max_tokens: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(root, max_tokens=max_tokens, **options)
        with user_errors():
            self.preprocess = Preprocess(picture_size(image_size))
        self.without, self.unknown_answers, self.on_bad = without, unknown_answers, on_bad
        self.given: list[str] | None = None
        self._checked: set[str] = set()

    # --- What there is ---

    def generated(self, count: int, split: str) -> list[VisualQuestion]:
        return [about_shapes(i, self.seed, split) for i in range(count)]

    def read(self, file: Path) -> list[VisualQuestion]:
        rows = [question_of(file, number, row) for number, row in json_rows(file)]
        folder = picture_folder(file, [row.file for row in rows], file.stem)
        rows = [row._replace(picture=folder / row.file, line=i) for i, row in enumerate(rows)]
        paths = list(dict.fromkeys(row.picture for row in rows if isinstance(row.picture, Path)))
        there = {paths[i] for i in check_images(paths, self.on_bad)}
        return [row for row in rows if row.picture in there]

    def kinds(self, rows: list[VisualQuestion]) -> tuple[Sequence[Hashable], Sequence[str]]:
        return [0] * len(rows), [row.file for row in rows]

    def said(self, row: VisualQuestion) -> Sequence[str]:
        return [row.question]

    def stored(self, split: str) -> Stored:
        rows = self.rows(split)
        return (
            super()
            .stored(split)
            ._replace(
                content=lambda i: [rows[i].question, shown(rows[i].picture, self.preprocess)],
                label=lambda i: rows[i].answer,
            )
        )

    def class_counts(self) -> list[int]:
        """The training questions of each answer."""
        counts = Counter(row.answer for row in self.rows("train"))
        return [counts[name] for name in self.classes]

    def written(self) -> Iterator[str]:
        yield from dict.fromkeys(row.question for row in self.rows("train"))

    @property
    def classes(self) -> list[str]:
        """The answers, in the order of the ids: a checkpoint's, or those of the training split."""
        if self.given is None:
            counts = Counter(row.answer for row in self.rows("train"))
            self.given = sorted(counts, key=lambda answer: (-counts[answer], answer))
        return self.given

    def check(self, split: str) -> None:
        if split in self._checked:
            return
        rows, known = self.rows(split), {*self.classes}
        mask = encode_captions(self._tokenizer(), [row.question for row in rows], UNLIMITED)[1]
        for row, length in zip(rows, mask.sum(1).tolist(), strict=True):
            if length > self.max_tokens:
                raise UserError(
                    f"{row.where}: the question {in_short(row.question)} has {length} tokens, over "
                    f"data.max_tokens={self.max_tokens}, and nothing is cut off."
                )
            if row.answer not in known and self.unknown_answers == "stop":
                raise UserError(
                    f"{row.where} has the answer {in_short(row.answer)}, which is none of the {len(known)} that "
                    f"training gives.{closest(row.answer, sorted(known))} "
                    "data.unknown_answers=wrong would count it as wrong."
                )
        self._checked.add(split)

    # --- What Lightning and tasks ask for ---

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``vocab_size``, ``num_classes`` and ``image_size``."""
        more = {"num_classes": len(self.classes), "image_size": self.preprocess.size}
        return {**super().model_arguments, **more}

    def assets(self) -> dict[str, Any]:
        return {
            **super().assets(),
            "labels": list(self.classes),
            "preprocess": dataclasses.asdict(self.preprocess),
            "without": self.without,
        }

    def use_assets(self, assets: dict[str, Any]) -> None:
        super().use_assets(assets)
        self.given = assets.get("labels", self.given)
        self.without = assets.get("without", self.without)
        if "preprocess" in assets:
            self.preprocess = Preprocess.from_dict(assets["preprocess"])

    def loader(self, split: str) -> DataLoader[Any]:
        self.check(split)
        rows = self.rows(split)
        batches = ExampleBatches(
            len(rows), self.batch_size, split == "train", self.order_seed, self.progress
        )
        return batch_loader(QuestionBatches(self, split), batches, self.num_workers)


class QuestionBatches(Dataset[Batch]):
    """Whole batches of a split."""

    def __init__(self, data: VisualQuestionsData, split: str) -> None:
        self.rows, self.training = data.rows(split), split == "train"
        self.tokenizer, self.preprocess = data._tokenizer(), data.preprocess
        self.max_tokens, self.on_bad, self.without = data.max_tokens, data.on_bad, data.without
        self.ids = {name: i for i, name in enumerate(data.classes)}

    def __len__(self) -> int:
        return len(self.rows)

    def picture(self, index: int) -> tuple[Image.Image, int]:
        """The picture of a question, and its number."""
        return shown(self.rows[index].picture, self.preprocess), index

    def __getitems__(self, picks: list[Pick]) -> Batch:
        indices = [pick.index for pick in picks]
        read = read_those(self.picture, indices, len(self.rows), self.on_bad, self.training)
        chosen = [index for _, index in read]
        some = [self.rows[i] for i in chosen]
        pixels = torch.stack([self.preprocess(picture) for picture, _ in read])
        texts = ["" if self.without == "question" else row.question for row in some]
        input_ids, mask = encode_captions(self.tokenizer, texts, self.max_tokens)
        return {
            "pixel_values": torch.zeros_like(pixels) if self.without == "picture" else pixels,
            "input_ids": input_ids,
            "mask": mask,
            "labels": torch.tensor([self.ids.get(row.answer, -100) for row in some]),
            "question": [row.question for row in some],
            "answer": [row.answer for row in some],
            "kind": [row.kind for row in some],
            "file": [row.file for row in some],
            "line": [row.line for row in some],
        }


def shown(picture: Path | shapes.Scene, preprocess: Any) -> Image.Image:
    """A picture of a file or of the built-in world, for what then makes ``pixel_values`` of it.

    Raises:
        UserError: a file that cannot be read.
    """
    if isinstance(picture, shapes.Scene):
        return shapes.draw(picture, min(preprocess.size))
    return read_image(picture, background=getattr(preprocess, "background", WHITE))


def about_shapes(index: int, seed: int, split: str) -> VisualQuestion:
    """A question about scene ``index`` of a split of the built-in world: each kind as often as any other."""
    scene = shapes.sample(index, seed, split)
    draw_from = random.Random(f"asked-{split}-{index}")
    by_kind: dict[str, list[shapes.Question]] = {}
    for one in shapes.questions(scene):
        begin = next(words for words in BEGINS if one.text.startswith(words))
        # As many of what is there as of what is not.
        answer = one.answer if begin == "is there" else ""
        by_kind.setdefault(f"{BEGINS[begin]} {answer}", []).append(one)
    kinds = sorted({kind.split()[0] for kind in by_kind})
    kind = draw_from.choice(kinds)
    some = [by_kind[name] for name in sorted(by_kind) if name.split()[0] == kind]
    asked = draw_from.choice(draw_from.choice(some))
    place = f"shapes-{split}-{index}"
    return VisualQuestion(asked.text, asked.answer, kind, scene, place, place, index)


def question_of(file: Path, line: int, row: dict[str, Any]) -> VisualQuestion:
    """A line of a file.

    Raises:
        UserError: a field that is missing, empty or no text.
    """
    image = next((name for name in IMAGE_COLUMNS if name in row), "image")
    found = {}
    for name in (image, "question", "answer"):
        value = row.get(name)
        value = str(value) if isinstance(value, int | float) and name == "answer" else value
        if not isinstance(value, str) or not value.strip():
            raise UserError(
                f"{file} line {line} needs image, question and answer, texts that are not empty, but "
                f"{name} is {in_short(value)}."
            )
        found[name] = value.strip()
    kind = str(row.get("kind") or row.get("type") or "")
    where = f"{file} line {line}"
    return VisualQuestion(found["question"], found["answer"], kind, Path(), found[image], where, 0)
