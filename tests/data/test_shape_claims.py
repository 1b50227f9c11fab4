"""What sentences of the built-in world say, and whether a scene has it."""

import pytest

from tasks.data import shapes
from tasks.data.shape_claims import Claims, Things, claims, verdict
from tasks.data.shapes import ShapeObject

RED = Things(1, "small", "red", "star")
BLUE = Things(2, "large", "blue", "cross")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a picture of a small red star", Claims((RED,))),
        ("two large blue crosses and a small red star", Claims((BLUE, RED))),
        ("there are two large blue crosses and a small red star", Claims((BLUE, RED))),
        ("the small red star is placed in the top right corner", Claims((RED,), cell=(0, 2))),
        ("there is a small red star at the bottom", Claims((RED,), cell=(2, 1))),
        (
            "two large blue crosses painted on a teal background",
            Claims((BLUE,), background="teal"),
        ),
        (
            "a small red star to the left of the small red star",
            Claims((RED, RED), relation="left"),
        ),
        ("the small red star is above the small red star", Claims((RED, RED), relation="above")),
        (
            "Two large blue crosses , a small red star and a small red star",
            Claims((BLUE, RED, RED)),
        ),
        ("a small red house", None),
        ("", None),
    ],
)
def test_what_a_sentence_says(text, said):
    assert claims(text) == said


def test_every_sentence_of_the_world_is_true_of_its_scene_and_hardly_of_another():
    wrong = 0
    for i in range(300):
        scene, other = shapes.sample(i), shapes.sample(i + 1)
        said = claims(shapes.caption(scene))
        assert said is not None and verdict(said, scene.objects, scene.background).all
        wrong += verdict(said, other.objects, other.background).all
    assert wrong < 3


def test_what_of_it_is_wrong():
    star = ShapeObject("star", "red", "small", 0, 0)
    said = claims("a small red star to the left of the large blue cross")
    right = [star, ShapeObject("cross", "blue", "large", 0, 1)]
    assert said is not None and verdict(said, right, "grey") == (True, True, True, True, None)
    moved = [star, ShapeObject("cross", "blue", "large", 2, 0)]
    assert verdict(said, moved, "grey") == (True, True, True, False, None)
    smaller = [star, ShapeObject("cross", "blue", "small", 0, 1)]
    assert verdict(said, smaller, "grey") == (True, True, False, False, None)
    green = [star, ShapeObject("cross", "green", "large", 0, 1)]
    assert verdict(said, green, "grey")[:3] == (True, False, False)
    assert not verdict(said, [*right, star], "grey").all  # two where one is said
    ground = claims("a small red star painted on a grey background")
    assert ground is not None and verdict(ground, right, "teal").background is False
