"""Tasks for language models from JSON lines: each row is a prompt, and texts that may stand behind it."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tasks.data import shapes
from tasks.data.captions import json_rows
from tasks.errors import UserError, closest, in_short

PROMPTS = ("prompt", "question")
KINDS = {
    "minimal pairs": {"sentence_good", "sentence_bad"},
    "multiple choice": {"choices", "answer"},
    "completions": {"completion"},
}
"""What a row must have to be of a kind; the last two have a prompt, too."""
GROUPS = ("field", "linguistics_term", "subject")
"""Columns by which scores are also given: BLiMP's, and that of multiple choice in many subjects."""
BUILT_IN = "shapes"
BETWEEN = "\n\n"
"""What stands between two examples."""


class Item(NamedTuple):
    """A prompt, and what may follow.

    Of minimal pairs the prompt is empty and the good sentence the right one, as BLiMP is defined in
    lm-evaluation-harness; a completion is the only choice.
    """

    prompt: str
    choices: tuple[str, ...]
    gold: int
    groups: tuple[tuple[str, str], ...] = ()

    def said(self) -> tuple[str, tuple[str, ...], int]:
        """All but the groups."""
        return self[:3]

    def pairs(self, examples: Sequence[Item] = ()) -> list[tuple[str, str]]:
        """The context, with examples before, and each choice behind it."""
        shown = "".join(
            one.prompt + behind(one.prompt, one.choices[one.gold]) + BETWEEN for one in examples
        )
        return [(shown + self.prompt, behind(self.prompt, choice)) for choice in self.choices]


def group_name(column: str, value: str) -> str:
    """How a group of items is called: ``field=syntax``."""
    return f"{column}={value}"


def behind(prompt: str, answer: str) -> str:
    """An answer as it follows a prompt: after a space, unless there is white space already."""
    return answer if prompt[-1:].isspace() or answer[:1].isspace() else f" {answer}"


@dataclass(frozen=True)
class TaskFile:
    """The rows of a file.

    Args:
        name: the file's, without its ending.
        kind: one of :data:`KINDS`.
        sha256: of the file.
    """

    name: str
    kind: str
    items: tuple[Item, ...]
    file: str
    sha256: str

    def names(self) -> set[str]:
        """What scores are given of: itself, and the groups of its items."""
        groups = {group_name(*group) for item in self.items for group in item.groups}
        return {self.name} | groups

    def shown(self, shots: int, seed: int) -> Iterator[list[Item]]:
        """For each item in turn the examples that stand before it: drawn from the other rows of the file,
        as lm-evaluation-harness draws them where its ``fewshot_split`` is the split that it evaluates; none
        says the same as the item.

        Raises:
            UserError: minimal pairs, which stand by themselves; or too few other rows.
        """
        if shots and self.kind == "minimal pairs":
            raise UserError(
                f"--shots={shots}: {self.file} has minimal pairs, which are judged without examples."
            )
        numbers, alike = random.Random(seed), Counter(item.said() for item in self.items)
        for item in self.items:
            others = len(self.items) - alike[item.said()]
            if others < shots:
                raise UserError(
                    f"--shots={shots}: {self.file} has only {others} rows that say something else than "
                    f"{item.prompt[:40]!r}."
                )
            # One more than needed, as the item itself may be among them.
            drawn = numbers.sample(self.items, shots + 1) if shots else []
            kept = [one for one in drawn if one.said() != item.said()][:shots]
            if len(kept) < shots:
                pool = [one for one in self.items if one.said() != item.said()]
                kept = numbers.sample(pool, shots)
            yield kept


def read_tasks(place: str) -> list[TaskFile]:
    """The task that a file is, those of a folder, or the built-in one.

    Raises:
        UserError: no such place; a folder without such files; a row that is none of a task.
    """
    if place == BUILT_IN:
        return [built_in()]
    path = Path(place)
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{place} is a folder without any .jsonl file: each is a task.")
    if files == [path] and path.suffix != ".jsonl":
        raise UserError(f"{place} is no .jsonl file: a task has a JSON object a line.")
    return [read_task(file) for file in files]


def read_task(file: Path) -> TaskFile:
    """The task of a file.

    Raises:
        UserError: see :func:`read_tasks`.
    """
    rows = list(json_rows(file))
    first, kind = rows[0][0], kind_of(file, *rows[0])
    items = []
    for number, row in rows:
        if (other := kind_of(file, number, row)) != kind:
            raise UserError(
                f"{file} line {number} is of {other}, but line {first} of {kind}: a file has one kind."
            )
        items.append(item_of(f"{file} line {number}", kind, row))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return TaskFile(file.stem, kind, tuple(items), str(file), digest)


def kind_of(file: Path, number: int, row: dict[str, Any]) -> str:
    """Of which of :data:`KINDS` a row is.

    Raises:
        UserError: of none.
    """
    for kind, needed in KINDS.items():
        if needed <= row.keys() and (kind == "minimal pairs" or any(p in row for p in PROMPTS)):
            return kind
    raise UserError(
        f"{file} line {number} has the fields {', '.join(row) or 'none'}: a row needs sentence_good and "
        "sentence_bad; prompt (or question), choices and answer; or prompt and completion."
    )


def item_of(where: str, kind: str, row: dict[str, Any]) -> Item:
    """A row as an item.

    Raises:
        UserError: a field that is empty or no text, too few choices, or an answer that is none of them.
    """
    groups = tuple((name, str(row[name])) for name in GROUPS if row.get(name) is not None)
    if kind == "minimal pairs":
        pair = tuple(text_of(where, row, name) for name in ("sentence_good", "sentence_bad"))
        return Item("", pair, 0, groups)
    prompt = text_of(where, row, next(name for name in PROMPTS if name in row))
    if kind == "completions":
        return Item(prompt, (text_of(where, row, "completion"),), 0, groups)
    given = row["choices"]
    if not isinstance(given, list) or len(given) < 2:
        raise UserError(
            f"{where}: choices must be a list of two texts or more, not {in_short(given)}."
        )
    choices = tuple(text_of(where, {"choices": one}, "choices") for one in given)
    if len(set(choices)) < len(choices):
        raise UserError(f"{where} has the same text twice among its choices.")
    return Item(prompt, choices, gold_of(where, choices, row["answer"]), groups)


def text_of(where: str, row: dict[str, Any], name: str) -> str:
    """A field that must be a text.

    Raises:
        UserError: it is none, or empty.
    """
    value = row[name]
    if not isinstance(value, str):
        raise UserError(f"{where}: {name} must be a text, not {in_short(value)}.")
    if not value.strip():
        raise UserError(f"{where}: {name} is empty.")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise UserError(
            f"{where}: {name}={in_short(value)} has half a character, a lone surrogate."
        )
    return value


def gold_of(where: str, choices: Sequence[str], answer: Any) -> int:
    """The number of the right choice.

    Raises:
        UserError: the answer is neither the number of a choice, nor its text.
    """
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    near = closest(answer, choices) if isinstance(answer, str) else ""
    raise UserError(
        f"{where}: answer={in_short(answer)} is none of the {len(choices)} choices: it must be a number from 0 to "
        f"{len(choices) - 1}, or the text of a choice.{near}"
    )


def built_in(count: int = 300) -> TaskFile:
    """Captions of the built-in shapes that are held out of training, from a noun on: "two small red" is
    followed by "stars above a circle", not by "star above a circle". In every second it is a plural."""
    forms = {shape: shapes.PLURALS_EN.get(shape, f"{shape}s") for shape in shapes.SHAPES}
    other = forms | {plural: shape for shape, plural in forms.items()}
    rows, seen = list[dict[str, Any]](), set[str]()
    for _, caption in shapes.translation_pairs(4 * count, 0, "test"):
        words = caption.split()
        place = next(i for i, word in enumerate(words) if word.rstrip(",") in other)
        noun, end = words[place].rstrip(","), words[place].removeprefix(words[place].rstrip(","))
        wanted = "plural" if len(rows) % 2 else "singular"
        # Without words behind it, the one form would be no more than the begin of the other.
        if (noun in forms) != (wanted == "singular") or place == len(words) - 1 or caption in seen:
            continue
        seen.add(caption)
        answer = " ".join(words[place:])
        rows.append(
            {
                "prompt": " ".join(words[:place]),
                "choices": [answer, " ".join([other[noun] + end, *words[place + 1 :]])],
                "answer": answer,
                "subject": wanted,
            }
        )
        if len(rows) == count:
            break
    items = tuple(item_of(BUILT_IN, "multiple choice", row) for row in rows)
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return TaskFile(BUILT_IN, "multiple choice", items, BUILT_IN, digest)
