"""Pairs of a sentence and a question from the built-in world, whose answer is a word, or a number."""

from __future__ import annotations

import random
import zlib

from tasks.data import shapes
from tasks.data.labelled_texts import LabelledText

FIRST = "at the left or on top"
QUESTIONS = {
    "shape": f"which shape is {FIRST}?",
    "colour": f"which colour has what is {FIRST}?",
    "size": f"how large is what is {FIRST}?",
}
COUNTED = {
    "first": f"how many are {FIRST}?",
    "more": f"how many more of these are {FIRST} than not?",
}


def asked_shapes(count: int, seed: int, split: str, numbers: bool = False) -> list[LabelledText]:
    """Sentences of how some things stand to others, and a question about them; the label answers it.

    Nothing is true of both, and no word tells which of them is asked about: who stands where depends on
    the relation and on the order of the two. As in translation, no sentence belongs to two splits.

    Args:
        numbers: ask how many there are, in place of what they are.
    """
    found: list[LabelledText] = []
    index = 0
    while len(found) < count:
        draw_from = random.Random(f"asked-{split}-{seed}-{index}")
        index += 1
        kinds, colours, sizes = (
            draw_from.sample(list(names), 2)
            for names in (shapes.SHAPES, shapes.COLOURS, shapes.SIZES)
        )
        counts = draw_from.sample((1, 2, 3, 4), 2)
        things = [
            shapes.ShapeObject(*names, 0, 0) for names in zip(kinds, colours, sizes, strict=True)
        ]
        one, other = (shapes.english(*said) for said in zip(things, counts, strict=True))
        how = draw_from.choice(list(shapes.RELATIONS))
        text = f"{one} {'is' if counts[0] == 1 else 'are'} {shapes.RELATIONS[how][0]} {other}"
        if zlib.crc32(text.encode()) % 10 not in shapes.SPLITS[split]:
            continue
        first = 0 if how in ("left", "above") else 1
        asked = draw_from.choice(list(COUNTED if numbers else QUESTIONS))
        here, there = counts[first], counts[1 - first]
        answer = {"first": here, "more": here - there}.get(asked)
        label = getattr(things[first], asked) if answer is None else str(answer)
        pair = (COUNTED if numbers else QUESTIONS)[asked]
        found.append(LabelledText(text, label, f"question {index}", pair=pair))
    return found
