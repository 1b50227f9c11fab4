"""The world of shapes in conversation: a scene is told thing by thing, then asked about.

The words of the prompt alone decide what is right, so that any answer can be judged by them.
"""

from __future__ import annotations

import random
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tasks.data.messages import Message
from tasks.data.shapes import (
    COLOURS,
    PLACES,
    PLURALS_EN,
    SHAPES,
    SIZES,
    SPLITS,
    Scene,
    sample,
)

DESCRIBE = ("describe the picture.", "what is in the picture?")
COUNT = re.compile(r"how many (\w+) (\w+) are there\?")
NUMBERS = ("no", "one", "two", "three", "four")
MOST = 4
"""Things in a scene that is told."""
PLURALS = {name: PLURALS_EN.get(name, f"{name}s") for name in SHAPES}
THING = re.compile(rf"an? ({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")
SAID = re.compile(rf"(an?|{'|'.join(NUMBERS)}) ({'|'.join(SIZES)}) ({'|'.join(COLOURS)}) (\w+)")


class Exchange(NamedTuple):
    """A question about a scene, with what is right and what is not."""

    prompt: list[Message]
    """One message of the user's."""
    answer: str
    wrong: str
    """As the answer but for one fact."""
    kind: str
    """"describe" or "count"."""


def exchange(index: int, seed: int = 0, split: str = "train", kind: str | None = None) -> Exchange:
    """Exchange ``index`` of a split: the same on every machine. Each scene, as it is told, belongs to one
    split alone, by its hash.

    Args:
        kind: "describe" or "count"; None is either.
    """
    turn = 0
    while True:
        scene = sample(index * 1000 + turn, seed, split)
        told = tell(scene)
        if len(scene.objects) <= MOST and zlib.crc32(told.encode()) % 10 in SPLITS[split]:
            break
        turn += 1
    draw_from = random.Random(f"exchange-{split}-{seed}-{index}")
    kind = kind or draw_from.choice(("describe", "describe", "count"))
    things = [(thing.size, thing.colour, thing.shape) for thing in scene.objects]
    if kind == "describe":
        question = draw_from.choice(DESCRIBE)
        answer = describe(Counter(things))
        wrong = describe(Counter(other_fact(things, draw_from)))
    else:
        colour, shape = draw_from.choice(things)[1:]
        if draw_from.random() < 0.3:
            colour = draw_from.choice(list(COLOURS))
        count = sum(thing[1:] == (colour, shape) for thing in things)
        question = f"how many {colour} {PLURALS[shape]} are there?"
        answer = NUMBERS[count]
        wrong = draw_from.choice([number for number in NUMBERS if number != answer])
    prompt: list[Message] = [{"role": "user", "content": f"{told} {question}"}]
    return Exchange(prompt, answer, wrong, kind)


def tell(scene: Scene) -> str:
    """Thing by thing, each in its place."""
    places = [(thing, PLACES[thing.row, thing.column][0]) for thing in scene.objects]
    things = [f"a {t.size} {t.colour} {t.shape} {place}" for t, place in places]
    return f"the picture has {', '.join(things)}."


def describe(things: Counter[tuple[str, str, str]]) -> str:
    """Like things together, as "two small red circles and a large blue star"."""
    parts = [
        f"{'a' if count == 1 else NUMBERS[count]} {size} {colour} {shape if count == 1 else PLURALS[shape]}"
        for (size, colour, shape), count in things.items()
    ]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def other_fact(
    things: Sequence[tuple[str, str, str]], draw_from: random.Random
) -> list[tuple[str, str, str]]:
    """The same with one fact wrong: a size, a colour or a shape of like things, or how many they are."""
    kind = draw_from.choice(list(dict.fromkeys(things)))
    place, known = draw_from.randrange(4), (tuple(SIZES), tuple(COLOURS), SHAPES)
    if place < 3:
        taken = {thing[place] for thing in things}
        options = [value for value in known[place] if value not in taken]
        if options:
            changed = (*kind[:place], draw_from.choice(options), *kind[place + 1 :])
            return [changed if thing == kind else thing for thing in things]  # type: ignore[misc]
    fewer = [*things]
    fewer.remove(kind)
    more = [*things, kind]
    return more if not fewer or (len(more) <= MOST and draw_from.random() < 0.5) else fewer


def judge(prompt: str, answer: str) -> float:
    """How right an answer is by the words of its prompt: 1 all right, 0 all wrong; of a description the
    share of what is there and said, of all that is there or said; out of another form it is wrong.

    Args:
        prompt: what the user says.
    """
    things, said = THING.findall(prompt), answer.strip()
    asked = COUNT.search(prompt)
    if asked is not None:
        colour, plural = asked.groups()
        count = sum(thing[1] == colour and PLURALS[thing[2]] == plural for thing in things)
        return float(said == NUMBERS[count])
    parts = [SAID.fullmatch(part) for part in re.split(r", | and ", said)]
    if not all(parts):
        return 0.0
    found = Counter[tuple[str, str, str]]()
    singular = {plural: name for name, plural in PLURALS.items()}
    for number, size, colour, name in (part.groups() for part in parts if part is not None):
        count = 1 if number in ("a", "an") else NUMBERS.index(number)
        fits = name in SHAPES if count == 1 else name in singular
        if not fits:
            return 0.0
        found[size, colour, singular.get(name, name)] += count
    true = Counter(things)
    right, all_of_it = true & found, true | found
    return sum(right.values()) / max(1, sum(all_of_it.values()))
