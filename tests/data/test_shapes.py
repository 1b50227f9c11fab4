"""The built-in world says the truth about its pictures, in both languages."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.data import shapes
from tasks.data.shapes import Scene, ShapeObject


def test_the_same_everywhere_and_different_by_split():
    assert shapes.sample(3, 1) == shapes.sample(3, 1)
    assert shapes.sample(3, 1) != shapes.sample(3, 2)
    # Written down, so that another machine or version of Python is held to it.
    assert shapes.translation_pairs(1) == [
        (
            "deux grands triangles violets, un grand carré orange et une petite étoile verte",
            "two large purple triangles, a large orange square and a small green star",
        )
    ]


def test_no_validation_sentence_was_trained_on():
    train = {english for _, english in shapes.translation_pairs(3000)}
    for split in ("val", "test"):
        held_out = {english for _, english in shapes.translation_pairs(200, split=split)}
        assert not train & held_out
    assert len(train) > 2000


@pytest.mark.parametrize("index", range(8))
def test_boxes_and_masks_fit_the_picture(index):
    scene = shapes.sample(index)
    picture = np.asarray(shapes.draw(scene, 96)).astype(int)
    changed = np.abs(picture - np.array(shapes.BACKGROUNDS[scene.background])).sum(-1) > 0
    mask = shapes.segmentation(scene, 96)
    assert not (mask > 0)[~changed].any()
    boxes, classes = shapes.boxes(scene, 96)
    assert len(boxes) == len(classes) == len(scene.objects)
    for (x0, y0, x1, y1), kind, thing in zip(boxes, classes, scene.objects, strict=True):
        inside = mask[int(y0) : int(y1), int(x0) : int(x1)] == kind + 1
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()
        solid = np.all(picture == np.array(shapes.COLOURS[thing.colour]), -1)
        assert solid[int(y0) : int(y1), int(x0) : int(x1)].mean() > 0.2


def thing(shape, colour="red", size="small", row=0, column=0):
    return ShapeObject(shape, colour, size, row, column)


@pytest.mark.parametrize(
    ("of", "count", "expected"),
    [
        (thing("circle", "green"), 1, "un petit cercle vert"),
        (thing("star", "white", "large"), 2, "deux grandes étoiles blanches"),
        (thing("star", "orange"), 3, "trois petites étoiles orange"),
        (thing("cross", "purple", "large"), 1, "une grande croix violette"),
        (thing("heart", "black"), 2, "deux petits cœurs noirs"),
    ],
)
def test_french_agrees(of, count, expected):
    assert shapes.french(of, count) == expected


def test_french_contracts_and_turns_words_around():
    scene = Scene((thing("star", "blue"), thing("square", "white", "large", 0, 2)), "grey", 3)
    assert shapes.captions(scene) == (
        "a small blue star to the left of the large white square",
        "une petite étoile bleue à gauche du grand carré blanc",
    )


def test_answers_are_right():
    scene = Scene((thing("star", "blue"), thing("square", "blue", "large", 1, 1)), "grey", 0)
    answers = {question.text: question.answer for question in shapes.questions(scene)}
    assert answers["how many blue shapes are there?"] == "2"
    assert answers["where is the square?"] == "in the middle"
    assert answers["is there a circle?"] == "no"
    assert answers["is the star small or large?"] == "small"
    assert shapes.label(scene) == shapes.SHAPES.index("square")
