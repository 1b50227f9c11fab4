"""Tags of words and the spans that they mark: IOB1, IOB2 and IOBES, as conlleval reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
PREFIXES = ("B", "I", "E", "S")
NAMELESS = "_"
"""The type of spans whose tags name none, a bare ``B``."""


class Span(NamedTuple):
    """The words ``first`` to ``last`` (without the last) and the type of what they are."""

    label: str
    first: int
    last: int


def split_tag(tag: str) -> tuple[str, str] | None:
    """Prefix and type of a tag, ``B-person``; None where it is neither such a one nor ``O``."""
    prefix, dash, kind = tag.partition("-")
    if tag == OUTSIDE:
        return OUTSIDE, ""
    if prefix not in PREFIXES or (dash and not kind):
        return None
    return prefix, kind or NAMELESS


def mark_spans(tags: Iterable[str]) -> bool:
    """Whether tags are those of spans: all of IOB or IOBES."""
    return all(split_tag(tag) is not None for tag in tags)


def spans_of(tags: Sequence[str], marked: bool = True) -> list[Span]:
    """The spans that the tags of a text's words mark.

    A word goes on with a span where its tag is I or E and the one before is B or I of the same type;
    any other that is not O begins one. So IOB1 (B only between neighbours), IOB2 and IOBES are all
    read right, and so are tags that no scheme allows, as conlleval's script (Tjong Kim Sang &
    Buchholz 2000) and seqeval count them.

    Args:
        marked: False takes each word as a span by itself, whose type is its tag.
    """
    if not marked:
        return [Span(tag, i, i + 1) for i, tag in enumerate(tags)]
    found: list[Span] = []
    before = (OUTSIDE, "")
    for i, tag in enumerate(tags):
        now = split_tag(tag) or (OUTSIDE, "")
        if now[0] in "IE" and before[0] in "BI" and now[1] == before[1]:
            found[-1] = found[-1]._replace(last=i + 1)
        elif now[0] != OUTSIDE:
            found.append(Span(now[1], i, i + 1))
        before = now
    return found
