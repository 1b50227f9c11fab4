"""Directions of translation between several languages, and how often each is trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

from tasks.data.parallel_texts import Parallel
from tasks.errors import UserError, closest


class Direction(NamedTuple):
    """From one language into another; as a text ``en-de``."""

    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.source}-{self.target}"


class Row(NamedTuple):
    """A sentence, its translation, their line from 0, and the direction, where there is more than one."""

    source: str
    target: str
    line: int
    direction: Direction | None = None


def read_directions(languages: Sequence[str], given: Sequence[str] | None) -> list[Direction]:
    """The directions that ``en-de`` and the like name; None are all between the languages.

    Raises:
        UserError: fewer than two languages, one twice, or a direction that is none between them.
    """
    if len(languages) < 2 or len(set(languages)) < len(languages):
        raise UserError(f"data.languages must be two or more, each once, not {[*languages]}.")
    possible = {str(one): one for one in (Direction(*pair) for pair in permutations(languages, 2))}
    if given is None:
        return list(possible.values())
    for name in given:
        if name not in possible:
            raise UserError(
                f"data.directions has {name!r}, which is no SOURCE-TARGET of data.languages "
                f"({', '.join(languages)}).{closest(name, possible)}"
            )
    if not given or len(set(given)) < len(given):
        raise UserError(f"data.directions must be one or more, each once, not {[*given]}.")
    return [possible[name] for name in given]


def check_languages(
    languages: Sequence[str],
    beside: tuple[str, str] | None,
    shared: bool,
    known: Sequence[str] | None,
) -> None:
    """Refuse what does not go with several languages.

    Args:
        beside: the source and target that are given too.
        shared: one tokenizer for all.
        known: all languages that there are; None are any.

    Raises:
        UserError: see above.
    """
    if beside is not None:
        raise UserError(
            f"data.languages={[*languages]} takes the place of data.source={beside[0]!r} and "
            f"data.target={beside[1]!r}: leave these out."
        )
    if not shared:
        raise UserError("data.languages needs data.shared_vocabulary=true: one tokenizer for all.")
    for language in languages:
        if known is not None and language not in known:
            raise UserError(
                f"data.languages has {language!r}, but the built-in data speak {', '.join(known)}; "
                "give data.root for others."
            )


def block_of(blocks: Sequence[Parallel], direction: Direction) -> Parallel | None:
    """The first block that has both languages of a direction."""
    return next((block for block in blocks if set(direction) <= block.columns.keys()), None)


def present(blocks: Sequence[Parallel], directions: Sequence[Direction]) -> list[Direction]:
    """The directions that there are sentences of."""
    return [one for one in directions if block_of(blocks, one) is not None]


def rows_of(blocks: Sequence[Parallel], directions: Sequence[Direction]) -> list[Row]:
    """The pairs of each direction in turn."""
    rows = []
    for one in directions:
        block = block_of(blocks, one)
        assert block is not None
        left, right = (block.columns[language] for language in one)
        texts = zip(left, right, block.lines, strict=True)
        rows += [Row(source, target, line, one) for source, target, line in texts]
    return rows
