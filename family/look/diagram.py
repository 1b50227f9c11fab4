"""Models side by side as a diagram, drawn from their configs: what differs stands out."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from family.core.config import TransformerConfig
from family.look.outline import (
    Outline,
    Part,
    attention_words,
    feedforward_words,
    layer_kinds,
    norm_words,
    short,
)
from family.look.svg import INK, LINE, SOFT, Drawing, cut

WIDE, GAP, MARGIN = 226, 34, 26
"""Of a column, between two, and around all."""
ATTENTION, CROSS, FEED, NORM, PART = "#fde8d0", "#fde0e6", "#dcebfd", "#fdf6c9", "#eef0f3"
"""Colours of sublayers, as in the figure of the paper."""
DIFFERS = "#c2410c"
KINDS = ("#5b8def", "#f2a65a", "#67b587", "#b07cc6")
"""Colours of layers that differ."""
HEAD, ROW = 62, 19


@dataclasses.dataclass
class Box:
    """Something drawn in a column, from below to above.

    Args:
        lines: the first is its title.
        fill: its colour; "" is no box but text, "+" where a branch is added.
        pair: what stands beside it, of a parallel block.
        crosses: it reads the column before.
    """

    lines: list[str]
    fill: str
    pair: list[str] | None = None
    crosses: bool = False

    @property
    def height(self) -> float:
        if self.fill == "+":
            return 15
        count = max(len(self.lines), len(self.pair or []))
        return 20 if self.fill == NORM else 12 + 15 * count


def block_boxes(config: TransformerConfig) -> list[list[Box]]:
    """The sublayers of a block from below, each the boxes of its branch up to the sum, and what follows."""
    attention = Box(["self-attention", *attention_words(config)], ATTENTION)
    if config.mixer != "attention":
        attention = Box(["mixer", *attention_words(config)], ATTENTION)
    feed = Box(["feed-forward", *feedforward_words(config)], FEED)
    if config.parallel:
        both = Box(attention.lines, ATTENTION, pair=feed.lines)
        return [with_norms(config, both)]
    found = [with_norms(config, attention, config.mixer_norm)]
    if config.cross_attention:
        heads = attention_words(config.replace(position="none", window=None))[0]
        found.append(with_norms(config, Box(["cross-attention", heads], CROSS, crosses=True)))
    return [*found, with_norms(config, feed)]


def with_norms(config: TransformerConfig, box: Box, first: bool = True) -> list[Box]:
    norm, plus = Box([norm_words(config)], NORM), Box([], "+")
    before = [norm] if first else []
    return {
        "pre": [*before, box, plus],
        "post": [box, plus, norm],
        "sandwich": [norm, box, norm, plus],
        "branch": [box, norm, plus],
    }[config.norm_order]


def height_of(part: Part) -> float:
    """How high a part is drawn, with the arrow that leads to it."""
    if not part.stack:
        return 22 + 12 + 15 * (1 + len(part.notes)) + (20 if part.reads else 0)
    blocks = block_boxes(part.stack[0])
    inner = sum(sum(b.height + 9 for b in boxes) + 8 for boxes in blocks)
    kinds = layer_kinds(part.stack)[1]
    below = 0 if len(kinds) < 2 else 24 + 15 * len(kinds)
    return 22 + 34 + inner + below + (29 if part.final_norm else 0)


def diagram(outlines: Sequence[Outline]) -> str:
    """SVG of models side by side, and a table of the fields in which their stacks differ."""
    shared = shared_words(outlines)
    tall = max(sum(map(height_of, c)) for one in outlines for c in one.columns) + HEAD + MARGIN
    widths = [len(one.columns) * (WIDE + GAP) - GAP for one in outlines]
    rows = differing(outlines)
    wide = sum(widths) + 2 * GAP * (len(outlines) - 1) + 2 * MARGIN
    if len(outlines) > 1:
        wide = max(wide, 190 + 170 * len(outlines) + 2 * MARGIN)
    table = ROW * (len(rows) + 1) + 30 if rows else 0
    drawing = Drawing(wide, tall + MARGIN + table)
    x = float(MARGIN)
    for one, width in zip(outlines, widths, strict=True):
        draw_outline(drawing, one, x, tall, shared if len(outlines) > 1 else None)
        x += width + 2 * GAP
    if rows:
        draw_table(drawing, outlines, rows, tall + MARGIN)
    return drawing.to_svg("; ".join(one.name for one in outlines))


def shared_words(outlines: Sequence[Outline]) -> set[str]:
    """The lines that more than one model has in its stacks."""
    count = Counter[str]()
    for one in outlines:
        boxes = [b for part in one.stacks for bs in block_boxes(part.stack[0]) for b in bs]
        count.update({line for b in boxes for line in (*b.lines, *(b.pair or ()))})
    return {line for line, models in count.items() if models > 1}


def draw_outline(
    drawing: Drawing, one: Outline, left: float, floor: float, shared: set[str] | None
) -> None:
    """One model, its columns from the floor up."""
    drawing.text(left, MARGIN + 16, one.name, 17, anchor="start", bold=True)
    said = [one.member] if one.member != one.name else []
    said += [f"{short(one.parameters)} parameters"]
    drawing.text(left, MARGIN + 35, " \N{MIDDLE DOT} ".join(said), 12, SOFT, "start")
    before: tuple[float, float] | None = None
    for i, column in enumerate(one.columns):
        x, y = left + i * (WIDE + GAP), floor
        crossed: list[tuple[float, float]] = []
        top = (x + WIDE, y)
        for j, part in enumerate(column):
            y = draw_part(drawing, part, x, y, first=j == 0, shared=shared, crossed=crossed)
            if part.stack:
                top = (x + WIDE / 2, y)
        if crossed and before is not None:
            middle = x - GAP / 2
            for _, at in crossed:
                drawing.line(
                    [
                        before,
                        (before[0], before[1] - 12),
                        (middle, before[1] - 12),
                        (middle, at),
                        (x + 30, at),
                    ],
                    arrow=True,
                )
        elif before is not None and not column[0].reads:
            middle, at = x - GAP / 2, x + WIDE / 2
            over = [before, (before[0], before[1] - 12), (middle, before[1] - 12)]
            drawing.line(
                [*over, (middle, floor - 4), (at, floor - 4), (at, floor - 20)], arrow=True
            )
        before = top


def draw_part(
    drawing: Drawing,
    part: Part,
    x: float,
    y: float,
    first: bool,
    shared: set[str] | None,
    crossed: list[tuple[float, float]],
) -> float:
    """A part on top of the one below, whose top is ``y``; the new top."""
    middle = x + WIDE / 2
    if part.reads:
        drawing.text(middle, y - 4, part.reads, 12, SOFT)
        y -= 20
    if not first or part.reads:
        drawing.line([(middle, y), (middle, y - 20)], arrow=True)
    y -= 22
    if part.stack:
        return draw_stack(drawing, part, x, y, shared, crossed)
    lines = [part.title, *part.notes]
    height = 12 + 15 * len(lines)
    drawing.box(x + 22, y - height, WIDE - 44, height, PART)
    for i, line in enumerate(lines):
        said = cut(line, WIDE - 52)
        drawing.text(
            middle, y - height + 18 + 15 * i, said, 12 if not i else 11, INK if not i else SOFT
        )
    return y - height


def draw_stack(
    drawing: Drawing,
    part: Part,
    x: float,
    floor: float,
    shared: set[str] | None,
    crossed: list[tuple[float, float]],
) -> float:
    """A block, how often it stands there, and how its layers differ."""
    top = floor - height_of(part) + 22
    if part.final_norm:
        draw_box(drawing, Box([norm_words(part.stack[0])], NORM), x, top + 20, None)
        drawing.line([(x + WIDE / 2, top + 29), (x + WIDE / 2, top + 20)])
        top += 29
    drawing.box(x, top, WIDE, floor - top, "#fafbfc", LINE, 10)
    drawing.text(x + 12, top + 20, part.title, 13, anchor="start", bold=True)
    times = f"{len(part.stack)} \N{MULTIPLICATION SIGN}"
    drawing.text(x + WIDE - 12, top + 20, f"{times} {part.stack[0].dim} wide", 12, SOFT, "end")
    draw_layers(drawing, part, x, top + 34)
    main, y = x + WIDE / 2, floor
    inner = sum(b.height + 9 for boxes in block_boxes(part.stack[0]) for b in boxes)
    drawing.line([(main, floor), (main, floor - inner - 8 * len(block_boxes(part.stack[0])))])
    for boxes in block_boxes(part.stack[0]):
        start, y = y - 4, y - 8
        for box in boxes:
            y -= 9
            if box.fill == "+":
                side = x + 13
                drawing.line([(main, start), (side, start), (side, y - 7), (main - 9, y - 7)])
                drawing.plus(main, y - 7)
            else:
                draw_box(drawing, box, x, y, shared)
                if box.crosses:
                    crossed.append((x, y - box.height / 2))
            y -= box.height
    return top - (29 if part.final_norm else 0)


def draw_box(drawing: Drawing, box: Box, x: float, floor: float, shared: set[str] | None) -> None:
    """A sublayer or a norm on its floor; what no other model has in another colour."""
    left, width = x + 30, float(WIDE - 50)
    halves = [(left, width, box.lines, box.fill)]
    if box.pair is not None:
        half = (width - 8) / 2
        halves = [(left, half, box.lines, ATTENTION), (left + half + 8, half, box.pair, FEED)]
    for at, room, lines, fill in halves:
        drawing.box(at, floor - box.height, room, box.height, fill, "#b9bfc9")
        for i, line in enumerate(lines):
            own = shared is not None and line not in shared
            size = 11.5 if not i else 10.5
            colour = DIFFERS if own else INK if not i else "#475467"
            base = floor - box.height + (14 if fill == NORM else 17 + 15 * i)
            drawing.text(at + room / 2, base, cut(line, room - 6, size), size, colour, bold=own)


def draw_layers(drawing: Drawing, part: Part, x: float, top: float) -> None:
    """A square a layer, coloured by its kind, the first at the left, and what the kinds are."""
    which, words = layer_kinds(part.stack)
    if len(words) < 2:
        return
    size = min(11.0, (WIDE - 28) / len(which))
    for i, kind in enumerate(which):
        drawing.box(x + 14 + i * size, top, size - 1.5, 11, KINDS[kind % len(KINDS)], "none", 2)
    for kind, said in enumerate(words):
        y = top + 26 + 15 * kind
        drawing.box(x + 14, y - 8, 9, 9, KINDS[kind % len(KINDS)], "none", 2)
        drawing.text(x + 28, y, cut(said, WIDE - 40, 10.5), 10.5, "#475467", "start")


# --- The table ---


MATTERS: dict[str, Callable[[TransformerConfig], bool]] = {
    "rotary_": lambda c: c.position == "rotary",
    "relative_": lambda c: c.position == "relative",
    "max_tokens": lambda c: c.position != "none",
    "context_dim": lambda c: c.cross_attention,
    "experts": lambda c: c.feedforward == "experts",
    "shared_experts": lambda c: c.feedforward == "experts",
    "normalize_routing": lambda c: c.feedforward == "experts",
    "qkv_bias": lambda c: c.qkv_bias != c.bias,
    "out_bias": lambda c: c.out_bias != c.bias,
}
"""Fields, by how they begin, that say something of some layers alone."""


def differing(outlines: Sequence[Outline]) -> list[tuple[str, list[str]]]:
    """The fields in which the stacks of several models differ, and their values; none of a single model."""
    if len(outlines) < 2:
        return []
    names = [f.name for f in dataclasses.fields(TransformerConfig) if f.name != "layers"]
    found = []
    for name in names:
        values = [values_of(one, name) for one in outlines]
        if len({*values}) > 1:
            found.append((name.replace("_", " "), values))
    return found


def values_of(one: Outline, name: str) -> str:
    """A field in all stacks of a model, each value once."""
    matters = next((test for start, test in MATTERS.items() if name.startswith(start)), None)
    layers = [c for part in one.stacks for c in part.stack if matters is None or matters(c)]
    values: list[Any] = [getattr(c, name) for c in layers]
    return " / ".join(dict.fromkeys(map(shown, values))) or "\N{EM DASH}"


def shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "\N{EN DASH}"
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def draw_table(
    drawing: Drawing, outlines: Sequence[Outline], rows: list[tuple[str, list[str]]], top: float
) -> None:
    """Fields down, models across; the rarer values stand out."""
    step = (drawing.width - 2 * MARGIN - 170) / len(outlines)
    y = top + 12
    drawing.text(MARGIN, y, "what differs", 12, SOFT, "start")
    for i, one in enumerate(outlines):
        x = MARGIN + 170 + i * step
        drawing.text(x, y, cut(one.name, step - 8), 12, anchor="start", bold=True)
    for name, values in rows:
        y += ROW
        drawing.line([(MARGIN, y - 13.5), (drawing.width - MARGIN, y - 13.5)], "#e6e9ee")
        drawing.text(MARGIN, y, name, 12, SOFT, "start")
        usual = max(values, key=values.count)
        for i, value in enumerate(values):
            rare = value != usual or values.count(value) == 1
            x = MARGIN + 170 + i * step
            drawing.text(x, y, cut(value, step - 8), 12, DIFFERS if rare else INK, "start")
