"""Pictures are read back for what was drawn."""

import numpy as np
from PIL import Image

from tasks.data import shapes
from tasks.data.shape_pictures import seen


def noisy(picture: Image.Image, deviation: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, deviation, (*picture.size, 3))
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


def test_what_was_drawn_is_seen():
    for i in range(12):
        scene = shapes.sample(i)
        picture = shapes.draw(scene, 48)
        for shown in (picture, noisy(picture, 12), shapes.draw(scene, 96)):
            found = seen(shown)
            assert set(found.objects) == set(scene.objects) and found.background == scene.background
            assert found.odd == 0


def test_what_is_no_thing_is_none():
    picture = shapes.draw(shapes.Scene((), "teal", 0), 48)
    assert seen(picture) == ((), "teal", 0)
    picture.paste((214, 48, 49), (1, 1, 15, 4))  # a red bar
    found = seen(picture)
    assert found.objects == () and found.odd == 1 and found.background == "teal"
