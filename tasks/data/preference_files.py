"""Prompts with a better and a worse answer, in JSON lines, or generated."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from tasks.data.captions import json_rows
from tasks.data.label_lists import LARGEST
from tasks.data.messages import Message, conversation, message
from tasks.data.shape_dialogues import exchange
from tasks.errors import UserError, in_short

SIDES = ("chosen", "rejected")


class Compared(NamedTuple):
    """A prompt, a text or a conversation that ends with the user, with its better and its worse answer."""

    prompt: str | list[Message]
    chosen: str
    rejected: str
    margin: float | None
    """By how much the better one is better, where somebody says."""
    file: str
    line: int

    @property
    def where(self) -> str:
        return f"{self.file} line {self.line}"

    @property
    def asked(self) -> str:
        """The prompt as one text, for looking at."""
        if isinstance(self.prompt, str):
            return self.prompt
        return "\n".join(f"{one['role']}: {one['content']}" for one in self.prompt)


def read_compared(file: Path) -> list[Compared]:
    """All rows of a file, in their order.

    Each line has "prompt", "chosen" and "rejected", and may have "margin". The prompt is a text, and its
    answers are texts; or it is a list of messages, and each answer a text or a list of one message of the
    assistant. Without a prompt, both are whole conversations, which begin alike and end with an answer each.

    Raises:
        UserError: what is wrong with it, and where.
    """
    rows = [compared(row, str(file), line) for line, row in json_rows(file)]
    if not rows:
        raise UserError(f"{file} holds no pair of answers.")
    said = [row for row in rows if row.margin is not None]
    if said and len(said) < len(rows):
        bare = next(row for row in rows if row.margin is None)
        raise UserError(
            f"{bare.where} has no margin, but {said[0].where} has one: give all or none."
        )
    return rows


def compared(row: Mapping[str, Any], file: str, line: int) -> Compared:
    """One row; see :func:`read_compared`."""
    where = f"{file} line {line}"
    for name in SIDES:
        if not row.get(name):
            raise UserError(f"{where} has {'an empty' if name in row else 'no'} {name}.")
    if "prompt" in row:
        prompt, answers = explicit(row, where)
    else:
        prompt, answers = implicit(row, where)
    if answers[0] == answers[1]:
        raise UserError(f"{where}: chosen and rejected are equal, so that neither is better.")
    margin = margin_of(row.get("margin"), where)
    return Compared(prompt, answers[0], answers[1], margin, file, line)


def explicit(row: Mapping[str, Any], where: str) -> tuple[str | list[Message], list[str]]:
    """Prompt and both answers of a row that says them apart."""
    given = row["prompt"]
    if not isinstance(given, str):
        prompt = conversation(given, f"{where}, prompt", ends="user")
        return prompt, [answer(row[name], f"{where}, {name}", True) for name in SIDES]
    if not given.strip():
        raise UserError(f"{where} has an empty prompt.")
    return given, [answer(row[name], f"{where}, {name}", False) for name in SIDES]


def answer(value: Any, where: str, messages: bool) -> str:
    """An answer: a text, or after messages also one message in a list.

    Raises:
        UserError: something else, nothing, or not the assistant's.
    """
    if isinstance(value, list) and messages:
        if len(value) != 1:
            raise UserError(
                f"{where} has {len(value)} messages: it must be one of the assistant's."
            )
        one = message(value[0], where)
        if one["role"] != "assistant":
            raise UserError(f"{where} is of the {one['role']}: it must be the assistant's.")
        return one["content"]
    if not isinstance(value, str):
        kind = "a text or a list of one message" if messages else "a text, as the prompt is one"
        raise UserError(f"{where} is a {type(value).__name__}: it must be {kind}.")
    if not value.strip():
        raise UserError(f"{where} is empty.")
    return value


def implicit(row: Mapping[str, Any], where: str) -> tuple[list[Message], list[str]]:
    """Prompt and both answers of two whole conversations: what they begin with alike, and what each has
    behind that.

    Raises:
        UserError: they differ before their last message, or in nothing.
    """
    if not all(isinstance(row[name], list) for name in SIDES):
        raise UserError(
            f"{where} has no prompt: without one, chosen and rejected must be whole conversations."
        )
    one, other = (conversation(row[name], f"{where}, {name}") for name in SIDES)
    both = zip(one, other, strict=False)
    prompt = [mine for mine, _ in takewhile(lambda pair: pair[0] == pair[1], both)]
    if len(prompt) == len(one) == len(other):
        raise UserError(f"{where}: chosen and rejected are equal, so that neither is better.")
    if not len(prompt) == len(one) - 1 == len(other) - 1 or not prompt:
        raise UserError(
            f"{where}: chosen and rejected must be one conversation up to their last message, the answer; "
            f"they part after {len(prompt)} messages of {len(one)} and {len(other)}."
        )
    return prompt, [one[-1]["content"], other[-1]["content"]]


def margin_of(value: Any, where: str) -> float | None:
    """By how much an answer is better.

    Raises:
        UserError: no number, or one below 0.
    """
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= LARGEST:
        raise UserError(
            f"{where} has the margin {in_short(value)}: it must be a number of at least 0, below {LARGEST:.3g}."
        )
    return float(value)


def compared_shapes(count: int, seed: int, split: str) -> list[Compared]:
    """Questions about scenes of the built-in world, with a right answer and one that is wrong in one fact."""
    found = (exchange(i, seed, split) for i in range(count))
    return [
        Compared(one.prompt, one.answer, one.wrong, None, "shapes", i + 1)
        for i, one in enumerate(found)
    ]
