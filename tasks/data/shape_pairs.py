"""Pairs of sentences about the built-in world: does one follow from the other, and how much have they in
common?"""

from __future__ import annotations

import random
import zlib

from tasks.data import shapes
from tasks.data.labelled_texts import LabelledText

Thing = tuple[int, str, str]
"""How many of which colour and shape."""


def paired_shapes(count: int, seed: int, split: str) -> list[LabelledText]:
    """A list of things, and a sentence that says there is one: "yes" if that follows, else "no".

    What is not there has the number and shape of one thing of the list with the colour of another, so that
    all of its words are in the list too, whatever the answer. No list belongs to two splits.
    """
    found: list[LabelledText] = []
    index = 0
    while len(found) < count:
        draw_from = random.Random(f"paired-{split}-{seed}-{index}")
        index += 1
        things = draw_things(draw_from, draw_from.choice((2, 3, 4)))
        text = told(things)
        (one, colour, shape), (_, other, _) = draw_from.sample(things, 2)
        true = draw_from.random() < 0.5
        said = one, colour if true else other, shape
        if true != (said in things) or zlib.crc32(text.encode()) % 10 not in shapes.SPLITS[split]:
            continue
        pair = f"there {'is' if one == 1 else 'are'} {phrase(said)}"
        found.append(LabelledText(text, "yes" if true else "no", f"pair {index}", pair=pair))
    return found


def compared_scenes(count: int, seed: int, split: str) -> list[LabelledText]:
    """Two lists of things, and the share of them that are in both (of all that are in either).

    A thing of the second list is often one of the first with another's colour or another number, so that
    words in common say little of it. No first list belongs to two splits.
    """
    found: list[LabelledText] = []
    index = 0
    while len(found) < count:
        draw_from = random.Random(f"compared-{split}-{seed}-{index}")
        index += 1
        one = draw_things(draw_from, draw_from.choice((2, 3, 4)))
        text = told(one)
        if zlib.crc32(text.encode()) % 10 not in shapes.SPLITS[split]:
            continue
        other = list(one)
        for _ in range(draw_from.randrange(len(one) + 1)):
            other = changed(other, draw_from)
        draw_from.shuffle(other)
        share = len({*one} & {*other}) / len({*one} | {*other})
        found.append(LabelledText(text, f"{share:.4g}", f"pair {index}", pair=told(other)))
    return found


def draw_things(draw_from: random.Random, count: int) -> list[Thing]:
    """So many things, no two of them alike."""
    found: list[Thing] = []
    while len(found) < count:
        colour, shape = draw_from.choice(list(shapes.COLOURS)), draw_from.choice(shapes.SHAPES)
        thing = draw_from.choice((1, 2, 3)), colour, shape
        if thing not in found:
            found.append(thing)
    return found


def changed(things: list[Thing], draw_from: random.Random) -> list[Thing]:
    """The things with one of them put otherwise, or two that have exchanged their colours."""
    first, second = draw_from.sample(range(len(things)), 2)
    found = list(things)
    (count, colour, shape), (others, theirs, kind) = things[first], things[second]
    if draw_from.random() < 0.5:
        found[first], found[second] = (count, theirs, shape), (others, colour, kind)
    else:
        found[first] = draw_things(draw_from, 1)[0]
    return found if len({*found}) == len(found) else things


def told(things: list[Thing]) -> str:
    """ "two red stars, a blue circle and three green squares"."""
    said = [phrase(thing) for thing in things]
    return f"{', '.join(said[:-1])} and {said[-1]}"


def phrase(thing: Thing) -> str:
    """ "two red stars"."""
    count, colour, shape = thing
    noun = shapes.PLURALS_EN.get(shape, f"{shape}s") if count > 1 else shape
    return f"{shapes.NUMBERS[count][0]} {colour} {noun}"
