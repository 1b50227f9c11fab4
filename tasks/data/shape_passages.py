"""Scenes of the world of shapes in words, with questions that the words answer, or do not."""

from __future__ import annotations

import random

from tasks.data.shapes import PLACES, Question, Scene


def passage(scene: Scene) -> tuple[str, list[tuple[Question, int | None]]]:
    """What stands where in a scene, in words, and questions of it: with each the character of the words
    at which its answer begins; None, and an empty answer, where the words have none.

    A question names a shape and its place: either alone may fit several things. A fifth of the questions
    are of a shape that stands elsewhere, and a place where something else stands.
    """
    draw_from = random.Random(f"passage-{scene.template}-{len(scene.objects)}")
    things = draw_from.sample(scene.objects, min(3, len(scene.objects)))
    text, asked = "", list[tuple[Question, int | None]]()
    for thing in things:
        place = PLACES[thing.row, thing.column][0]
        said = f"the {thing.size} {thing.colour} {thing.shape} is {place}"
        text += f"{', ' if text else ''}{said}"
        begin = len(text) - len(said)
        for question, answer in (
            (f"what colour is the {thing.shape} {place}?", thing.colour),
            (f"how large is the {thing.shape} {place}?", thing.size),
            (f"what is {place}?", f"{thing.size} {thing.colour} {thing.shape}"),
        ):
            asked.append((Question(question, answer), begin + said.index(answer)))
    said_of = {(thing.shape, PLACES[thing.row, thing.column][0]) for thing in things}
    names, places = sorted({name for name, _ in said_of}), sorted({place for _, place in said_of})
    missing = [(n, place) for n in names for place in places if (n, place) not in said_of]
    for shape, place in draw_from.sample(missing, min(len(missing), len(things))):
        kind = draw_from.choice(("what colour is", "how large is"))
        asked.append((Question(f"{kind} the {shape} {place}?", ""), None))
    return f"{text}.", asked
