"""All that can be done with the built-in world, as rows of one vocabulary."""

from __future__ import annotations

import dataclasses
import random
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from family.inputs.encode import pad_rows
from family.inputs.preprocess import Preprocess
from family.losses.language_model import IGNORE
from tasks.data import shapes
from tasks.data.base import FamilyData
from tasks.data.images import picture_size
from tasks.data.sampling import ExampleBatches, Pick, batch_loader
from tasks.data.stored import Stored
from tasks.data.tokenizers import SPECIALS, Tokenizer, make_tokenizer
from tasks.errors import UserError, at_least, closest, user_errors

Batch = dict[str, Any]
TASKS = ("translate", "caption", "answer", "draw", "classify", "detect")
READS = ("caption", "answer", "classify", "detect")
"""Those that are given a picture."""
SEP, PICTURE = "<sep>", "<picture>"


class Given(NamedTuple):
    """What is given of a task, and what is to be made."""

    task: str
    scene: shapes.Scene
    text: str
    """That is given: a sentence, a question; or empty."""
    answer: str
    """Words; or empty, where a picture is to be drawn."""


class UnifiedData(FamilyData):
    """Translations, captions, answers, drawings, classes and boxes of the built-in world, each a row of words and
    of places for codes of pictures; by turns, in one batch.

    A batch:

    - ``input_ids (batch, tokens)`` int64: ``<bos> <task> ... <sep> ...``, padded at the right, with ``<picture>``
      in the places of codes;
    - ``labels (batch, tokens)`` int64: the token after each, of what is to be made; else -100;
    - ``documents (batch, tokens)`` int64, in training, where rows stand behind each other in lines of at most twice
      the longest, so that there are fewer lines than ``batch_size``: the number of each token's row in its line, -1
      where it is padding;
    - ``pixel_values (pictures, 3, height, width)`` float32: -1 to 1, of the rows that have one, in their order;
    - of each row, line by line, ``task``: list of names; ``text``, ``answer``: lists of what is given in words, and
      of what is right; ``number``: list of the scenes' numbers in their split.

    Args:
        root: none: of these rows there are no files, and the world is the built-in one.
        tasks: of translate, caption, answer, draw, classify, detect.
        image_size: of all pictures, ``(height, width)``.
        slots: codes of a picture.
        bins: places along a side, of corners of boxes.
        examples: rows of training; validation has 50 of each task at least.
    """

    task = "Unified"
    isolate = True
    decided = ("image_size", "bins")

    def __init__(
        self,
        root: str | None = None,
        tasks: tuple[str, ...] = TASKS,
        image_size: tuple[int, int] = (48, 48),
        slots: int = 36,
        bins: int = 48,
        batch_size: int = 64,
        examples: int = 60_000,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if root is not None:
            raise UserError(f"data.root={root}: all tasks in one are of the built-in world alone.")
        at_least(1, slots=slots, bins=bins, batch_size=batch_size, examples=examples)
        at_least(0, num_workers=num_workers, seed=seed)
        for name in tasks:
            if name not in TASKS:
                raise UserError(
                    f"data.tasks has {name!r}; there are: {', '.join(TASKS)}.{closest(name, TASKS)}"
                )
        if not tasks:
            raise UserError(f"data.tasks is empty; choose of: {', '.join(TASKS)}.")
        with user_errors():
            size = picture_size(image_size)
            self.preprocess = Preprocess(size, mean=(0.5,) * 3, std=(0.5,) * 3)
        self.tasks, self.slots, self.bins = tuple(tasks), slots, bins
        self.batch_size, self.examples = batch_size, examples
        self.seed, self.num_workers = seed, num_workers
        self.tokenizer: Tokenizer | None = None

    # --- Rows ---

    def count(self, split: str) -> int:
        """Rows of a split."""
        return (
            self.examples if split == "train" else len(self.tasks) * max(50, self.examples // 300)
        )

    def given(self, split: str, index: int) -> Given:
        """Row ``index`` of a split: in training the tasks come by turns, in validation one after another."""
        some = self.count(split) // len(self.tasks)
        which = (
            index % len(self.tasks) if split == "train" else min(index // some, len(self.tasks) - 1)
        )
        return given(self.tasks[which], index, self.seed, split, self.bins)

    def row(self, one: Given) -> tuple[list[int], list[int]]:
        """Tokens that are given, and those that are to be made."""
        tokenizer = self._tokenizer()
        assert tokenizer.bos_id is not None and tokenizer.eos_id is not None
        picture = self.named(PICTURE) * self.slots
        before = [tokenizer.bos_id, *self.named(f"<{one.task}>")]
        before += picture if one.task in READS else []
        before += [*tokenizer.encode(one.text), *self.named(SEP)]
        after = picture if one.task == "draw" else self.answer_ids(one)
        return before, [*after, tokenizer.eos_id]

    def answer_ids(self, one: Given) -> list[int]:
        """What is to be made, in words; of boxes their corners and their shapes."""
        if one.task != "detect":
            return self._tokenizer().encode(one.answer)
        return [token for word in one.answer.split() for token in self.named(word)]

    def named(self, word: str) -> list[int]:
        """The one token that a special word is."""
        token = self._tokenizer().inner.token_to_id(word)
        assert token is not None, word
        return [token]

    # --- What Lightning and tasks ask for ---

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            texts = set()
            for i in range(3000):
                for name in ("translate", "caption", "answer"):
                    one = given(name, i, self.seed, "train", self.bins)
                    texts |= {one.text, one.answer}
            places = [f"<{i}>" for i in range(self.bins + 1)]
            special = (*SPECIALS, SEP, PICTURE, *(f"<{name}>" for name in TASKS), *places)
            ordered = [*sorted(texts), " ".join(shapes.SHAPES)]
            self.tokenizer = make_tokenizer("word", ordered, 2000, specials=special)
        return self.tokenizer

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self._tokenizer()

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``words`` and ``picture_id``."""
        tokenizer = self._tokenizer()
        picture = tokenizer.inner.token_to_id(PICTURE)
        return {"words": tokenizer.vocab_size, "picture_id": picture}

    def assets(self) -> dict[str, Any]:
        return {
            "tokenizers": {"text": self._tokenizer().to_json()},
            "preprocess": dataclasses.asdict(self.preprocess),
            "bins": self.bins,
        }

    def use_assets(self, assets: dict[str, Any]) -> None:
        self.tokenizer = Tokenizer.from_json(assets["tokenizers"]["text"])
        self.preprocess = Preprocess.from_dict(assets["preprocess"])
        self.bins = assets.get("bins", self.bins)

    def stored(self, split: str) -> Stored:
        def content(i: int) -> str:
            one = self.given(split, i)
            return f"{one.task} {one.text} {one.scene if one.task in READS else one.answer}"

        return Stored(self.count(split), content)

    def loader(self, split: str) -> DataLoader[Any]:
        batches = ExampleBatches(
            self.count(split), self.batch_size, split == "train", self.order_seed, self.progress
        )
        return batch_loader(UnifiedBatches(self, split), batches, self.num_workers)


class UnifiedBatches(Dataset[Batch]):
    """Whole batches of a split."""

    def __init__(self, data: UnifiedData, split: str) -> None:
        self.data, self.split = data, split

    def __len__(self) -> int:
        return self.data.count(self.split)

    def pixels(self, scene: shapes.Scene) -> Tensor:
        preprocess = self.data.preprocess
        return preprocess(shapes.draw(scene, min(preprocess.size)))

    def __getitems__(self, picks: list[Pick]) -> Batch:
        some = [self.data.given(self.split, pick.index) for pick in picks]
        rows = [self.data.row(one) for one in some]
        lengths = [len(before) + len(after) - 1 for before, after in rows]
        train = self.split == "train"
        lines = side_by_side(lengths) if train else [[i] for i in range(len(rows))]
        order = [i for line in lines for i in line]
        ids = [[*before, *after[:-1]] for before, after in rows]
        labels = [[*[IGNORE] * (len(before) - 1), *after] for before, after in rows]
        packed = {
            "input_ids": joined(ids, lines, self.data._tokenizer().pad_id or 0),
            "labels": joined(labels, lines, IGNORE),
        }
        if train:
            place = {i: number for line in lines for number, i in enumerate(line)}
            numbers = [[place[i]] * length for i, length in enumerate(lengths)]
            packed["documents"] = joined(numbers, lines, -1)
        some = [some[i] for i in order]
        seen = [one.scene for one in some if one.task == "draw" or one.task in READS]
        size = self.data.preprocess.size
        pixels = [self.pixels(scene) for scene in seen]
        return {
            **packed,
            "pixel_values": torch.stack(pixels) if pixels else torch.empty(0, 3, *size),
            "task": [one.task for one in some],
            "text": [one.text for one in some],
            "answer": [one.answer for one in some],
            "number": [picks[i].index for i in order],
        }


def side_by_side(lengths: Sequence[int]) -> list[list[int]]:
    """Lines of rows that are together at most twice as long as the longest one: each, the longest first, in the first
    line that has room for it."""
    lines: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        line = next((k for k, left in enumerate(room) if left >= lengths[i]), len(lines))
        if line == len(lines):
            lines.append([])
            room.append(2 * max(lengths))
        lines[line].append(i)
        room[line] -= lengths[i]
    return lines


def joined(rows: Sequence[list[int]], lines: Sequence[Sequence[int]], fill: int) -> Tensor:
    """The rows of each line behind each other, ``(lines, tokens)``, filled up at the right."""
    return pad_rows([[token for i in line for token in rows[i]] for line in lines], fill)


def places(scene: shapes.Scene, bins: int) -> str:
    """Boxes in the order of reading: top, left, bottom, right, and the shape of each."""
    found = []
    things = sorted(scene.objects, key=lambda thing: (thing.row, thing.column))
    boxes, classes = shapes.boxes(dataclasses.replace(scene, objects=tuple(things)))
    for (x0, y0, x1, y1), kind in zip(boxes.tolist(), classes.tolist(), strict=True):
        sides = (round(side / 96 * bins) for side in (y0, x0, y1, x1))
        found.append(" ".join((*(f"<{side}>" for side in sides), shapes.SHAPES[kind])))
    return " ".join(found)


def given(task: str, index: int, seed: int, split: str, bins: int) -> Given:
    """Row ``index`` of a task: the same on every machine. As in translation, a sentence belongs to one split
    alone, by its hash."""
    turn = 0
    while True:
        scene = shapes.sample(index * 100 + turn, seed, split)
        said = shapes.sentences(scene)
        if zlib.crc32(said["en"].encode()) % 10 in shapes.SPLITS[split]:
            break
        turn += 1
    if task == "translate":
        return Given(task, scene, said["fr"], said["en"])
    if task == "caption":
        return Given(task, scene, "", said["en"])
    if task == "draw":
        return Given(task, scene, said["en"], "")
    if task == "classify":
        return Given(task, scene, "", shapes.SHAPES[shapes.label(scene)])
    if task == "detect":
        return Given(task, scene, "", places(scene, bins))
    asked = random.Random(f"{split}-{seed}-{index}").choice(by_kind(scene))
    return Given(task, scene, asked.text, asked.answer)


def by_kind(scene: shapes.Scene) -> Sequence[shapes.Question]:
    """The questions of a scene, as many of what is there as of what is not."""
    asked = shapes.questions(scene)
    no = [one for one in asked if one.answer == "no"]
    yes = [one for one in asked if one.answer == "yes"]
    others = [one for one in asked if one.answer not in ("yes", "no")]
    return [*others, *yes, *no[: len(yes)]]
