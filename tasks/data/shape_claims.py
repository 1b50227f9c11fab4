"""What a sentence about the world of shapes claims, and whether it is so: for pictures drawn from sentences,
and for sentences about pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tasks.data.shapes import (
    BACKGROUNDS,
    COLOURS,
    NUMBERS,
    PLACES,
    PLURALS_EN,
    RELATIONS,
    SHAPES,
    SIZES,
    ShapeObject,
    relation,
)

SINGULAR = {PLURALS_EN.get(name, f"{name}s"): name for name in SHAPES}
COUNTS = {"the": 1, **{english: count for count, (english, _) in NUMBERS.items()}}
CELLS = {english: cell for cell, (english, _) in PLACES.items()}
HOW = {english: name for name, (english, _) in RELATIONS.items()}


def either(names: Sequence[str]) -> str:
    return "|".join(names)


PHRASE = (
    rf"({either(list(COUNTS))}) ({either(list(SIZES))}) ({either(list(COLOURS))}) "
    rf"({either([*SINGULAR, *SHAPES])})"
)
SENTENCES = {
    "beside": re.compile(rf"{PHRASE}(?: is)? ({either(list(HOW))}) {PHRASE}"),
    "place": re.compile(rf"(?:there is )?{PHRASE}(?: is placed)? ({either(list(CELLS))})"),
    "background": re.compile(rf"{PHRASE} painted on a ({either(list(BACKGROUNDS))}) background"),
    "list": re.compile(
        rf"(?:there (?:is|are) |a picture of )?{PHRASE}(?:(?:, {PHRASE})* and {PHRASE})?"
    ),
}
"""The forms of a sentence."""


class Things(NamedTuple):
    """So many things alike."""

    number: int
    size: str
    colour: str
    shape: str

    def among(self, objects: Sequence[ShapeObject]) -> list[ShapeObject]:
        """Those that are meant."""
        kind = self.size, self.colour, self.shape
        return [one for one in objects if (one.size, one.colour, one.shape) == kind]


class Claims(NamedTuple):
    """All that a sentence says."""

    things: tuple[Things, ...]
    cell: tuple[int, int] | None = None
    """Where the only thing stands: its row and column."""
    relation: str | None = None
    """How the first stands to the second."""
    background: str | None = None


class Verdict(NamedTuple):
    """Whether a sentence is true of a scene: in the things themselves, and in all that it says."""

    shapes: bool
    """There are as many of each shape, or more."""
    colours: bool
    """There are as many of each shape in its colour, or more."""
    things: bool
    """There are as many of each shape in its colour and size, no fewer and no more."""
    relation: bool | None
    """They stand as is said; None where nothing is."""
    background: bool | None

    @property
    def all(self) -> bool:
        return self.things and self.relation is not False and self.background is not False


def claims(text: str) -> Claims | None:
    """What an English sentence says, however it is spaced; None where it has none of the forms of
    :func:`tasks.data.shapes.sentences`."""
    text = " ".join(text.lower().replace(",", " , ").split()).replace(" ,", ",")
    for form, pattern in SENTENCES.items():
        found = pattern.fullmatch(text)
        if found is None:
            continue
        things = tuple(
            Things(COUNTS[count], size, colour, SINGULAR.get(name, name))
            for count, size, colour, name in re.findall(PHRASE, text)
        )
        if form == "beside":
            return Claims(things, relation=HOW[found[5]])
        if form == "place":
            return Claims(things, cell=CELLS[found[5]])
        return Claims(things, background=found[5] if form == "background" else None)
    return None


def is_so(text: str, objects: Sequence[ShapeObject], background: str | None) -> bool:
    """Whether all that a sentence says is true of these objects; of one of another form nothing is."""
    said = claims(text)
    return said is not None and verdict(said, objects, background).all


def verdict(said: Claims, objects: Sequence[ShapeObject], background: str | None) -> Verdict:
    """Whether it is true of these objects.

    Args:
        background: by name; None where nobody knows.
    """
    shapes = colours = things = True
    for one in said.things:
        shape = [thing for thing in objects if thing.shape == one.shape]
        shapes &= len(shape) >= one.number
        colours &= sum(thing.colour == one.colour for thing in shape) >= one.number
        things &= len(one.among(objects)) == one.number
    place = None
    if said.cell is not None:
        place = any((one.row, one.column) == said.cell for one in said.things[0].among(objects))
    if said.relation is not None:
        firsts, seconds = (one.among(objects) for one in said.things)
        place = any(relation(a, b) == said.relation for a in firsts for b in seconds if a is not b)
    ground = None if said.background is None else said.background == background
    return Verdict(shapes, colours, things, place, ground)
