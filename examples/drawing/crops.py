"""Things of the built-in world cut out of true pictures, a folder each ("red star"): what the judge of drawn
pictures learns to tell things by.

    python examples/drawing/crops.py OUT
    family fit --config image_classification/shapes_cnn --data.root OUT --data.image_size 24 --run_folder runs/things
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tasks.data import shapes

SIZE = 48
COUNTS = {"train": 3000, "val": 200, "test": 200}
MARGIN = 1
"""Pixels around a box, which a detector finds to a pixel."""


def cut(picture: Image.Image, box: Sequence[float]) -> Image.Image:
    """What a box of x0, y0, x1, y1 holds, and a margin."""
    x0, y0, x1, y1 = (round(side) for side in box)
    return picture.crop(
        (x0 - MARGIN, y0 - MARGIN, max(x1, x0 + 1) + MARGIN, max(y1, y0 + 1) + MARGIN)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out, shift = parser.parse_args().out, random.Random(0)
    for split, count in COUNTS.items():
        for i in range(count):
            scene = shapes.sample(i, split=split)
            picture, (boxes, _) = shapes.draw(scene, SIZE), shapes.boxes(scene, SIZE)
            for number, (thing, box) in enumerate(zip(scene.objects, boxes, strict=True)):
                folder = out / split / f"{thing.colour} {thing.shape}"
                folder.mkdir(parents=True, exist_ok=True)
                moved = [side + shift.choice((-1, 0, 0, 1)) for side in box]
                cut(picture, moved).save(folder / f"{i}-{number}.png")


if __name__ == "__main__":
    main()
