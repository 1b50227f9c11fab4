"""The family on one core: every member as a card, drawn from what it is built of."""

from __future__ import annotations

from collections.abc import Sequence

from family.look.diagram import ATTENTION, CROSS, FEED, NORM
from family.look.outline import Outline, Part
from family.look.svg import INK, SOFT, Drawing, cut, wide

CARD, TALL, GAP, MARGIN, COLUMNS = 152, 150, 12, 28, 7
BOTH, CAUSAL = "#dcebfd", "#fde8d0"
"""Stacks that read both ways, and those that read what came before alone."""
EDGE = {BOTH: "#7fa7dd", CAUSAL: "#e0a866"}
CROSSING = "#d0647e"
TOP = 170
LAYERS = 3
"""Lines that stand for the layers of a stack."""
LONG = 16
"""Letters of a name from which on it is written smaller."""


def portrait(members: Sequence[tuple[Outline, str]]) -> str:
    """SVG of the core, and a card of each member.

    Args:
        members: each with what it gives, in a word or two.
    """
    rows = -(-len(members) // COLUMNS)
    width = COLUMNS * (CARD + GAP) - GAP + 2 * MARGIN
    drawing = Drawing(width, TOP + rows * (TALL + GAP) + MARGIN - GAP)
    draw_core(drawing)
    for i, (one, gives) in enumerate(members):
        x = MARGIN + (i % COLUMNS) * (CARD + GAP)
        draw_card(drawing, one, gives, x, TOP + (i // COLUMNS) * (TALL + GAP))
    return drawing.to_svg("The family on one core")


def draw_core(drawing: Drawing) -> None:
    """One block from left to right, and what the colours of stacks mean."""
    drawing.text(MARGIN, 46, "One core, many members", 22, anchor="start", bold=True)
    drawing.text(
        MARGIN, 68, "The same block in every stack; a member is a config of it.", 13, SOFT, "start"
    )
    x, y = 496.0, 74.0
    drawing.text(x - 46, y - 12, "tokens", 12, SOFT)
    sublayers = (("self-attention", ATTENTION), ("cross-attention", CROSS), ("feed-forward", FEED))
    drawing.box(x - 18, 22, drawing.width - MARGIN - x + 18, 92, "#fafbfc", radius=10)
    drawing.line([(x - 68, y), (drawing.width - MARGIN + 12, y)], arrow=True)
    step = (drawing.width - MARGIN - x) / len(sublayers)
    for i, (name, fill) in enumerate(sublayers):
        at = x + i * step
        drawing.line([(at - 6, y), (at - 6, y - 34), (at + 188, y - 34), (at + 188, y - 8)])
        drawing.box(at + 2, y - 12, 42, 24, NORM, "#b9bfc9")
        drawing.text(at + 23, y + 4, "norm", 11.5)
        drawing.box(at + 58, y - 18, 112, 36, fill, "#b9bfc9")
        drawing.text(at + 114, y + 4, name, 12.5)
        drawing.plus(at + 188, y)
    x = float(MARGIN)
    for fill, said in ((BOTH, "reads both ways"), (CAUSAL, "reads what came before")):
        drawing.box(x, 136, 20, 14, fill, EDGE[fill], 3)
        drawing.text(x + 27, 147, said, 12, SOFT, "start")
        x += 62 + wide(said)
    drawing.line([(x, 143), (x + 24, 143)], CROSSING, arrow=True)
    drawing.text(x + 31, 147, "cross-attention", 12, SOFT, "start")


def draw_card(drawing: Drawing, one: Outline, gives: str, x: float, y: float) -> None:
    """A member: what it reads below, its stacks, what it gives above."""
    drawing.box(x, y, CARD, TALL, "#ffffff", "#d7dbe2", 10)
    size = 13.5 if len(one.name) < LONG else 12.0
    drawing.text(x + 12, y + 21, cut(one.name, CARD - 20, size), size, anchor="start", bold=True)
    drawing.text(x + 12, y + 38, cut(gives, CARD - 24, 11.5), 11.5, SOFT, "start")
    columns = [c for c in one.columns if any(p.stack for p in c)]
    step = (CARD - 16) / len(columns)
    room = min(76, step - 20)
    before: float | None = None
    for i, column in enumerate(columns):
        middle, floor = x + 8 + (i + 0.5) * step, y + TALL - 11
        drawing.text(middle, floor, reads_of(one, column, len(columns) == 1), 11, SOFT)
        drawing.line([(middle, floor - 13), (middle, floor - 23)], arrow=True)
        stack = next(p for p in column if p.stack)
        top = draw_small(drawing, stack, middle, floor - 25, room)
        if before is not None and stack.stack[0].cross_attention:
            drawing.line([(before, top + 24), (middle - room / 2, top + 24)], CROSSING, arrow=True)
        elif before is not None and not column[0].reads:
            drawing.line([(before, top + 24), (middle - room / 2, top + 24)], arrow=True)
        before = middle + room / 2
        if i + 1 == len(columns) or stands_alone(columns[i + 1]):
            drawing.line([(middle, top), (middle, y + 44)], arrow=True)


def stands_alone(column: tuple[Part, ...]) -> bool:
    """Whether nothing of the column before enters it."""
    return bool(column[0].reads) and not any(p.stack and p.stack[0].cross_attention for p in column)


def reads_of(one: Outline, column: tuple[Part, ...], alone: bool) -> str:
    """What enters a column: as its parts say, or, of the only one, the member."""
    if alone:
        return " + ".join(kind.replace("pictures", "picture") for kind in one.reads)
    said = dict.fromkeys(part.reads for part in column if part.reads)
    return " + ".join(said) or "queries"


def draw_small(drawing: Drawing, part: Part, middle: float, floor: float, room: float) -> float:
    """A stack as a sign; its top."""
    fill = CAUSAL if part.stack[0].causal else BOTH
    height = 48.0
    drawing.box(middle - room / 2, floor - height, room, height, fill, EDGE[fill], 6, 1.2)
    for i in range(1, LAYERS):
        y = floor - i * height / LAYERS
        drawing.line([(middle - room / 2, y), (middle + room / 2, y)], EDGE[fill])
    if part.title != "transformer":
        drawing.text(middle, floor - height / 2 + 4, cut(part.title, room - 2, 10), 10, INK)
    return floor - height
