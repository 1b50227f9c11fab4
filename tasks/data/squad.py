"""Questions and their answers in a text: SQuAD's JSON, JSON lines, and the world of shapes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tasks.data import shapes
from tasks.data.captions import json_rows
from tasks.data.shape_passages import passage
from tasks.data.text_files import parse_json, read_text
from tasks.errors import UserError, in_short

JSON, LINES = ".json", ".jsonl"
ENDINGS = (JSON, LINES)


class Answer(NamedTuple):
    """What is said in the text, and at which of its characters it begins."""

    text: str
    start: int


class Asked(NamedTuple):
    """A question, the text that it is asked of, and its answers: none where the text has none. The number
    of the paragraph in its file, and the place of the question, for messages."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    paragraph: str
    where: str


def read_questions(file: Path, needed: bool = True) -> list[Asked]:
    """All questions of a file, in their order: SQuAD 1.1 or 2.0, or a question a line.

    Args:
        needed: refuse a question that says nothing of its answers; else it has none.

    Raises:
        UserError: missing, empty or not UTF-8; a field that is missing or of a wrong kind; a question or
            text that is empty; an id that is there twice; an answer that does not stand where it is said.
    """
    asked = list((read_lines if file.suffix == LINES else read_squad)(file, needed))
    if not asked:
        raise UserError(f"{file} holds no question.")
    seen: dict[str, str] = {}
    for one in asked:
        if one.id in seen:
            raise UserError(f"{one.where} has the id of {seen[one.id]}: ids must differ.")
        seen[one.id] = one.where
    return asked


def read_squad(file: Path, needed: bool) -> Iterator[Asked]:
    """``data -> paragraphs -> context, qas``."""
    whole = parse_json(read_text(file), str(file), lines=True)
    paragraphs: dict[str, str] = {}  # by their texts: one that stands there twice is in one split
    for a, article in enumerate(listed(whole, "data", str(file))):
        place = f"{file}: data[{a}]"
        for p, paragraph in enumerate(listed(article, "paragraphs", place)):
            place = f"{file}: data[{a}].paragraphs[{p}]"
            context = told(paragraph, "context", place)
            group = paragraphs.setdefault(context, f"{a}/{p}")
            for q, row in enumerate(listed(paragraph, "qas", place)):
                where = f"{place}.qas[{q}]"
                told(row, "question", where)
                name = row.get("id", f"{a}/{p}/{q}")
                given = listed(row, "answers", where) if needed or "answers" in row else []
                none = row.get("is_impossible", False)
                if needed and not given and none is not True:
                    raise UserError(
                        f"{file}: question {name} has no answers, but is_impossible is not true."
                    )
                # Of a question without answer, SQuAD 2.0 lists what only seems to be one apart.
                yield asked_of(file, str(name), row, context, [] if none is True else given, group)


def read_lines(file: Path, needed: bool) -> Iterator[Asked]:
    """``{"question", "context", "answers", "id"}`` a line: answers as in SQuAD, or as lists of texts and
    starts, ``{"text": [...], "answer_start": [...]}``. Without ``id`` it is the number of the line."""
    paragraphs: dict[str, str] = {}
    for number, row in json_rows(file):
        where = f"{file} line {number}"
        told(row, "question", where)
        context = told(row, "context", where)
        given = row.get("answers")
        if isinstance(given, dict) and all(isinstance(part, list) for part in given.values()):
            columns = [given.get(name, []) for name in ("text", "answer_start")]
            if len(columns[0]) != len(columns[1]):
                raise UserError(
                    f"{where} has {len(columns[0])} answers in 'text', but {len(columns[1])} in "
                    "'answer_start'."
                )
            given = [dict(text=t, answer_start=s) for t, s in zip(*columns, strict=True)]
            row = {**row, "answers": given}
        given = listed(row, "answers", where) if needed or "answers" in row else []
        paragraph = paragraphs.setdefault(context, str(len(paragraphs)))
        yield asked_of(file, str(row.get("id", number)), row, context, given, paragraph)


def asked_of(
    file: Path, name: str, row: dict[str, Any], context: str, given: list[Any], paragraph: str
) -> Asked:
    """A question with its answers, which stand where they are said to."""
    where = f"{file}: question {name}"
    answers = []
    for one in given:
        text, start = told(one, "text", f"{where}: an answer"), one.get("answer_start")
        if not isinstance(start, int) or isinstance(start, bool):
            raise UserError(
                f"{where}: answer_start={in_short(start)} of {in_short(text)} is no number of a character."
            )
        there = context[max(0, start) : start + len(text)]
        if start < 0 or there != text:
            raise UserError(
                f"{where}: the answer {in_short(text)} is said to stand at character {start}, but {in_short(there)} "
                "stands there."
            )
        answers.append(Answer(text, start))
    return Asked(name, row["question"].strip(), context, tuple(answers), paragraph, where)


def listed(row: Any, name: str, where: str) -> list[Any]:
    """A field that is a list.

    Raises:
        UserError: it is not there, or no list.
    """
    if not isinstance(row, dict) or not isinstance(row.get(name), list):
        raise UserError(f"{where} has no list {name!r}, as SQuAD's files have.")
    return row[name]


def told(row: Any, name: str, where: str) -> str:
    """A field that is a text.

    Raises:
        UserError: it is not there, no text, or empty.
    """
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, str):
        raise UserError(f"{where} has no text {name!r}.")
    if not value.strip():
        raise UserError(f"{where} has an empty {name!r}.")
    return value


def asked_shapes(count: int, seed: int, split: str) -> list[Asked]:
    """Questions about scenes that are described in words, some of which the words do not answer; the
    questions of one scene follow each other. As in translation, no text belongs to two splits."""
    found: list[Asked] = []
    index = 0
    while len(found) < count:
        context, questions = passage(shapes.sample(index, seed, split))
        index += 1
        if zlib.crc32(context.encode()) % 10 not in shapes.SPLITS[split]:
            continue
        for n, (question, start) in enumerate(questions):
            answers = () if start is None else (Answer(question.answer, start),)
            name = f"{split}-{index}-{n}"
            found.append(
                Asked(name, question.text, context, answers, str(index), f"question {name}")
            )
    return found[:count]
