"""The world in motion: what moves, which way, and that no frame gives it away."""

from __future__ import annotations

import dataclasses

import numpy as np

from tasks.data import shapes_video
from tasks.data.shapes import BACKGROUNDS
from tasks.data.shapes_video import CLASSES, DIRECTIONS, Thing, draw, label, sample

STEP = 1 / 16
"""Two pixels of 32."""


def test_a_clip_is_the_same_on_every_machine():
    assert sample(3, 1, "val") == sample(3, 1, "val")
    scenes = [sample(i, seed, split) for i in range(5) for seed in (0, 1) for split in ("a", "b")]
    assert len(set(scenes)) == 20
    clip = draw(sample(0), 3, 24)
    assert clip.shape == (3, 24, 24, 3) and clip.dtype == np.uint8
    assert np.array_equal(clip, draw(sample(0), 3, 24))


def test_classes_occur_about_equally_often():
    count = np.bincount([label(sample(i)) for i in range(1600)], minlength=len(CLASSES))
    assert len(count) == 16 and count.min() > 60 and count.max() < 140


def test_what_moves_which_way_is_what_the_class_says():
    for number, (direction, (across, down)) in enumerate(DIRECTIONS.items()):
        things = Thing("square", "red", "large", 0.5, 0.5), Thing("star", "black", "small", 0, 0)
        scene = shapes_video.MovingScene(things, 0, direction, STEP, "grey")
        assert CLASSES[label(scene)] == f"square {direction}"
        clip = draw(scene, 4, 32)
        red = (clip == (214, 48, 49)).all(-1)
        for i in range(4):
            assert np.array_equal(np.roll(red[0], (2 * i * down, 2 * i * across), (0, 1)), red[i])
        assert red[0].sum() > 50 and number < 4
        black = (clip == (25, 25, 25)).all(-1)
        assert black.any() and all(np.array_equal(frame, black[0]) for frame in black)


def test_backwards_it_is_a_clip_of_the_opposite_class():
    """So that frames without their order say nothing of the direction."""
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    for i in range(8):
        scene = dataclasses.replace(sample(i), speed=STEP)
        across, down = DIRECTIONS[scene.direction]
        things, moved = list(scene.things), scene.things[scene.moving]
        # Of a fine grid, on which both round alike.
        x, y = round(moved.x * 128) / 128, round(moved.y * 128) / 128
        things[scene.moving] = dataclasses.replace(moved, x=x, y=y)
        there = dataclasses.replace(scene, things=tuple(things))
        end = dataclasses.replace(moved, x=x + 7 * across * STEP, y=y + 7 * down * STEP)
        things[scene.moving] = end
        back = dataclasses.replace(scene, things=tuple(things), direction=opposite[scene.direction])
        assert np.array_equal(draw(there), draw(back)[::-1])
        assert label(there) != label(back)


def test_either_shape_moves_and_either_lies_above():
    """Neither the one above nor the first is always the one that moves."""
    scenes = [sample(i) for i in range(200)]
    assert 60 < sum(scene.moving for scene in scenes) < 140
    assert {scene.background for scene in scenes} == {*BACKGROUNDS}
    for scene in scenes:
        assert scene.things[0].shape != scene.things[1].shape
        assert scene.things[0].colour != scene.things[1].colour
