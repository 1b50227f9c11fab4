"""Questions whose answers are spans of a text."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from family.inputs.pair_windows import PairWindow, pad_windows, pair_windows, trimmed
from family.inputs.text_pairs import with_pairs
from tasks.data.split_files import own_file, shared_file
from tasks.data.squad import ENDINGS, Asked, asked_shapes, read_questions
from tasks.data.text_data import TextData
from tasks.data.tokenizers import Tokenizer
from tasks.errors import UserError, at_least

Batch = dict[str, Any]
CLASSES = ["start", "end"]
NOWHERE = 0
"""The token that a window points at which has no answer: the first, which stands for the whole."""


class Window(NamedTuple):
    """A part of a question's text, with the question: what a model reads, and the tokens that begin and
    end the answer there."""

    pair: PairWindow
    start: int
    end: int


class Read(NamedTuple):
    """A question by its number, with some of its windows: in training one, in evaluation all."""

    number: int
    windows: tuple[Window, ...]


class QuestionAnsweringData(TextData[Asked]):
    """Questions, the texts that they are asked of, and the spans of these that answer them.

    A question and its text are one row, as the tokenizer puts a pair together. A text that is too long is
    read in windows that overlap, with the whole question before each; one that has not all of the answer,
    or of a question without any, points at the first token. Of several answers the first is learned.
    In evaluation all windows of a question are in one batch.

    A batch:

    - ``input_ids (batch, tokens)`` int64, padded at the right, and ``token_types (batch, tokens)`` int64;
    - ``mask (batch, tokens)`` bool: True = a token;
    - ``starts (batch,)`` int64, ``ends (batch,)`` int64: the first and the last token of the answer;
    - ``places (batch, tokens, 2)`` int64: of a token of the text its characters there, -1 of any other;
    - ``question``: list of the number of each row's question; and lists of these: ``id``, ``asked``,
      ``context``, ``answers`` (of each a list of texts, none where there is no answer), ``line``.

    Args:
        root: a folder with a file for each split, ``SPLIT.json`` as of SQuAD 1.1 and 2.0, or ``.jsonl`` with a
            question a line: ``{"question": ..., "context": ..., "answers": ...}``; or one such file of
            everything, which is divided by paragraphs. By their numbers in the file, not by what they
            say: so that files with the same texts in several languages are divided alike. None is the
            built-in world of shapes: colours, sizes and things in descriptions, some of which are not
            there.
        stride: tokens of the text that a window has in common with the one before.
        options: of :class:`~tasks.data.text_data.TextData`; ``batch_size`` counts windows, and
            ``max_tokens`` the tokens of one, question and all.
    """

    task = "QuestionAnswering"
    windows = True
    decided: tuple[str, ...] = (*TextData.decided, "stride")
    endings, kind_of_file = ENDINGS, "file of questions"

    def __init__(
        self, root: str | None = None, max_tokens: int = 384, stride: int = 128, **options: Any
    ) -> None:
        super().__init__(root, max_tokens=max_tokens, **options)
        at_least(0, stride=stride)
        self.stride = stride
        self.given_impossible: bool | None = None

    # --- What there is ---

    def generated(self, count: int, split: str) -> list[Asked]:
        return asked_shapes(count, self.seed, split)

    def read(self, file: Path) -> list[Asked]:
        """See :func:`~tasks.data.squad.read_questions`."""
        return read_questions(file)

    def kinds(self, rows: list[Asked]) -> tuple[Sequence[Hashable], Sequence[str]]:
        return [0] * len(rows), [row.paragraph for row in rows]

    @property
    def classes(self) -> list[str]:
        """What is told of each token: how likely the answer begins there, and ends."""
        return CLASSES

    @property
    def impossible(self) -> bool:
        """Whether questions may have no answer: a checkpoint's, or as those of the training split."""
        if self.given_impossible is None:
            self.given_impossible = any(not row.answers for row in self.rows("train"))
        return self.given_impossible

    def read_windows(self, rows: Sequence[Asked]) -> Iterator[tuple[Window, ...]]:
        """The windows of each question.

        Raises:
            UserError: a question that leaves too little room for the text.
        """
        tokenizer = self._tokenizer()
        for row in rows:
            pair = [(row.question, row.context)]
            try:
                windows = next(pair_windows(tokenizer, pair, self.max_tokens, self.stride))
            except ValueError as error:
                raise UserError(f"{row.where}: {error}") from None
            span = None
            if row.answers:
                text, start = row.answers[0]
                span = trimmed(row.context, start, start + len(text))
            found = [None if span is None else window.tokens_of(*span) for window in windows]
            pairs = zip(windows, found, strict=True)
            yield tuple(Window(window, *(place or (NOWHERE, NOWHERE))) for window, place in pairs)

    # --- What Lightning and tasks ask for ---

    def _tokenizer(self) -> Tokenizer:
        return with_pairs(super()._tokenizer())

    def check(self, split: str) -> None:
        for _ in self.read_windows(self.rows(split)):
            pass

    def said(self, row: Asked) -> Sequence[str]:
        return [row.question, row.context]

    def written(self) -> Iterator[str]:
        seen: set[str] = set()
        for row in self.rows("train"):
            if row.paragraph not in seen:
                seen.add(row.paragraph)
                yield row.context
            yield row.question

    @property
    def model_arguments(self) -> dict[str, Any]:
        """``vocab_size`` and ``num_classes``: a begin and an end."""
        return {**super().model_arguments, "num_classes": len(CLASSES)}

    def assets(self) -> dict[str, Any]:
        """With ``stride``, and whether questions may be ``impossible``."""
        more = {"labels": CLASSES, "stride": self.stride, "impossible": self.impossible}
        return {**super().assets(), **more}

    def use_assets(self, assets: dict[str, Any]) -> None:
        super().use_assets(assets)
        self.stride = assets.get("stride", self.stride)
        self.given_impossible = assets.get("impossible", self.given_impossible)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The questions of "test", or all of a file without answers."""
        file = None
        if self.root is not None:
            whole, parts = shared_file(self.root, self.splits, self.endings)
            file = (
                whole if "test" in parts else own_file(self.root, self.splits["test"], self.endings)
            )
        if file is not None:
            rows = read_questions(file, needed=False)
            if not any(row.answers for row in rows):
                return self._loader("test", rows, range(len(rows)))
        return self.loader("test")

    def loader(self, split: str) -> DataLoader[Any]:
        return self._loader(split, self.rows(split), self.places(split))

    def _loader(self, split: str, rows: list[Asked], lines: Sequence[int]) -> DataLoader[Any]:
        read = [Read(i, windows) for i, windows in enumerate(self.read_windows(rows))]
        if split == "train":
            read = [one._replace(windows=(window,)) for one in read for window in one.windows]
        lengths = [sum(len(window.pair.ids) for window in one.windows) for one in read]
        tokenizer = self._tokenizer()
        return self.batches(split, read, lengths, partial(collate, tokenizer, rows, lines))


def collate(
    tokenizer: Tokenizer, rows: Sequence[Asked], lines: Sequence[int], read: list[Read]
) -> Batch:
    """A batch of :class:`QuestionAnsweringData`."""
    windows = [(one.number, window) for one in read for window in one.windows]
    pairs = [window.pair for _, window in windows]
    ids, mask, types, places = pad_windows(pairs, tokenizer.pad_id or 0)
    asked = [rows[number] for number, _ in windows]
    return {
        "input_ids": ids,
        "mask": mask,
        "token_types": types,
        "starts": torch.tensor([window.start for _, window in windows]),
        "ends": torch.tensor([window.end for _, window in windows]),
        "places": places,
        "question": [number for number, _ in windows],
        "id": [one.id for one in asked],
        "asked": [one.question for one in asked],
        "context": [one.context for one in asked],
        "answers": [[answer.text for answer in one.answers] for one in asked],
        "line": [lines[number] for number, _ in windows],
    }
