"""Words and their tags: CoNLL columns, JSON lines, and the world of shapes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from family.inference.spans import OUTSIDE, PREFIXES, split_tag
from tasks.data import shapes
from tasks.data.captions import json_rows
from tasks.data.text_files import Column, read_text
from tasks.errors import UserError, in_short, some_of

COLUMNS = (".conll", ".iob", ".iob2", ".iobes", ".bio", ".tsv", ".txt")
JSON = ".jsonl"
ENDINGS = (*COLUMNS, JSON)
NEW_DOCUMENT = "-DOCSTART-"
WORD_FIELDS = ("tokens", "words")
TAG_FIELDS = ("tags", "ner_tags", "labels")


class TaggedText(NamedTuple):
    """The words of a text and a tag for each; the file, and in it the line of each word."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    file: str
    lines: tuple[int, ...]

    def where(self, word: int) -> str:
        """The place of a word, for messages."""
        return f"{self.file} line {self.lines[word]}"


def read_tagged(file: Path, word: Column = None, tag: Column = None) -> list[TaggedText]:
    """All texts of a file, in their order.

    Args:
        word, tag: of CoNLL the columns by their numbers, from 0 on or, below 0, from the end; of JSON
            lines the fields by their names. None is the first column and the last, or the field
            with a usual name.

    Raises:
        UserError: missing, empty or not UTF-8 (with the byte offset); columns or lists that do not
            line up; a word or a tag that is empty.
    """
    texts = list((read_json if file.suffix == JSON else read_columns)(file, word, tag))
    if not texts:
        raise UserError(f"{file} holds no text: every line is blank.")
    return texts


def read_columns(file: Path, word: Column, tag: Column) -> Iterator[TaggedText]:
    """A word a line and columns beside it, between tabs or, in a line without any, spaces; a blank line
    ends a text, as a line of ``-DOCSTART-`` does, which is left out."""
    places = column_number("word_column", word, 0), column_number("tag_column", tag, -1)
    rows: list[tuple[str, str, int]] = []
    wide = at = 0
    for number, raw in enumerate(read_text(file).split("\n"), 1):
        line = raw.removesuffix("\r")
        if not line.strip() or line.startswith(NEW_DOCUMENT):
            if rows:
                yield tagged(file, rows)
            rows = []
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        if not at:
            wide, at = len(fields), number
            check_columns(file, number, wide, places)
        if len(fields) != wide:
            raise UserError(
                f"{file} line {number} has {len(fields)} column{'s' * (len(fields) != 1)}, but line {at} "
                f"has {wide}: a line is a word and its tag, and texts have a blank line between them."
            )
        rows.append((*(fields[place] for place in places), number))  # type: ignore[arg-type]
    if rows:
        yield tagged(file, rows)


def column_number(option: str, given: Column, usual: int) -> int:
    """The number of a column.

    Raises:
        UserError: a name, which columns have not.
    """
    if isinstance(given, str):
        raise UserError(f"data.{option}={given!r}: columns of CoNLL have numbers, from 0 on.")
    return usual if given is None else given


def check_columns(file: Path, line: int, wide: int, places: Sequence[int]) -> None:
    """Refuse a file with too few columns, by its first line."""
    if wide < 2:
        raise UserError(f"{file} line {line} has 1 column, but a word needs a tag beside it.")
    for name, place in zip(("word_column", "tag_column"), places, strict=True):
        if not -wide <= place < wide:
            raise UserError(
                f"data.{name}={place}: {file} line {line} has {wide} columns, from 0 on."
            )


def tagged(file: Path, rows: Sequence[tuple[str, str, int]]) -> TaggedText:
    """A text of CoNLL."""
    for word, tag, number in rows:
        if not word.strip() or not tag.strip():
            what = "tag" if word.strip() else "word"
            raise UserError(f"{file} line {number} has an empty {what}.")
    words, tags, lines = zip(*rows, strict=True)
    return TaggedText(words, tuple(tag.strip() for tag in tags), str(file), lines)


def read_json(file: Path, word: Column, tag: Column) -> Iterator[TaggedText]:
    """A text a line, ``{"tokens": [...], "tags": [...]}``."""
    for number, row in json_rows(file):
        words = listed(file, number, row, "word_column", word, WORD_FIELDS)
        tags = listed(file, number, row, "tag_column", tag, TAG_FIELDS)
        if len(words) != len(tags):
            raise UserError(
                f"{file} line {number} has {len(words)} words but {len(tags)} tags: there must be as many."
            )
        if words:
            yield TaggedText(tuple(words), tuple(tags), str(file), (number,) * len(words))


def listed(
    file: Path, number: int, row: dict[str, Any], option: str, given: Column, usual: Sequence[str]
) -> list[str]:
    """A field that holds a list of texts."""
    names = usual if given is None else (str(given),)
    name = next((name for name in names if name in row), None)
    if name is None:
        has = some_of(row) or "none"
        raise UserError(
            f"{file} line {number} has no field {in_short(names[0])}, only: {has}; data.{option} may name it."
        )
    value = row[name]
    if not isinstance(value, list) or not all(
        isinstance(one, str) and one.strip() for one in value
    ):
        raise UserError(
            f"{file} line {number}: {name!r} must be a list of texts, none of them empty."
        )
    return value


def check_spans(texts: Sequence[TaggedText]) -> None:
    """Refuse a tag that marks no span.

    Raises:
        UserError: the first of them, and where it stands.
    """
    for text in texts:
        for i, tag in enumerate(text.tags):
            if split_tag(tag) is None:
                known = ", ".join(f"{prefix}-TYPE" for prefix in PREFIXES)
                raise UserError(
                    f"{text.where(i)} has the tag {in_short(tag)}, which is no IOB tag ({known} or {OUTSIDE}); "
                    "data.spans=false takes tags as they are."
                )


def tag_names(texts: Sequence[TaggedText]) -> list[str]:
    """The names of the tags, sorted; ``O`` stands first.

    Raises:
        UserError: one tag alone.
    """
    names = sorted({tag for text in texts for tag in text.tags})
    if len(names) < 2:
        raise UserError(
            f"every word has the tag {in_short(names[0])} (from {texts[0].where(0)} on): there must be two tags "
            "at least."
        )
    return sorted(names, key=lambda name: name != OUTSIDE)


# --- The world of shapes ---

PLURALS = {shapes.PLURALS_EN.get(name, f"{name}s") for name in shapes.SHAPES}
NOUNS = {*shapes.SHAPES, *PLURALS}
COUNTS = {words[0] for count, words in shapes.NUMBERS.items() if count > 1}
OTHERS = 5
"""Of captions that say of no two things how they stand, one of so many is taken: else most words would
say by themselves what they are."""
LOOSE = ("in", "at", "on")
"""What a place begins with."""


def tagged_shapes(count: int, seed: int, split: str) -> list[TaggedText]:
    """Captions of scenes: numbers, colours, shapes and places.

    No table of words would do: where one thing is said to stand somewhere by another, only the one at
    the left or on top is marked, whichever is named first; and ``top left corner`` is a place, but
    ``to the left of`` is none. As in translation, no sentence belongs to two splits.
    """
    found: list[TaggedText] = []
    index = 0
    while len(found) < count:
        scene = shapes.sample(index, seed, split)
        index += 1
        text = shapes.caption(scene)
        if chosen(text) is None and index % OTHERS:
            continue
        if zlib.crc32(text.encode()) % 10 in shapes.SPLITS[split]:
            words = text.replace(",", " ,").split()
            tags = tuple(tags_of(words, chosen(text)))
            found.append(TaggedText(tuple(words), tags, f"caption {index}", (1,) * len(words)))
    return found


def chosen(text: str) -> int | None:
    """Which of the two things of a caption is marked; None is every thing that it names."""
    for how, words in shapes.RELATIONS.items():
        if f" {words[0]} the " in text:
            return 0 if how in ("left", "above") else 1
    return None


def tags_of(words: Sequence[str], marked: int | None) -> Iterator[str]:
    """The tag of each word of a caption."""
    thing = 0
    place = False
    for i, word in enumerate(words):
        before = words[i - 2 : i] if i > 1 else []
        starts = marked is None and len(before) == 2 and before[0] in LOOSE and before[1] == "the"
        if starts or place:
            yield "B-place" if starts else "I-place"
            place = True
            continue
        kind = "shape" if word in NOUNS else "colour" if word in shapes.COLOURS else ""
        kind = "number" if word in COUNTS else kind
        yield f"B-{kind}" if kind and marked in (None, thing) else OUTSIDE
        thing += word in NOUNS
