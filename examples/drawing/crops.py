"""Things of the built-in world cut out of true pictures, a folder a colour: what the judge of drawn pictures learns
colours from.

    python examples/drawing/crops.py OUT
    family fit --config image_classification/shapes_cnn --data.root OUT --data.image_size 24 --run_folder runs/colours
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tasks.data import shapes

SIZE = 48
COUNTS = {"train": 2000, "val": 200, "test": 200}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    for split, count in COUNTS.items():
        for i in range(count):
            scene = shapes.sample(i, split=split)
            picture, (boxes, _) = shapes.draw(scene, SIZE), shapes.boxes(scene, SIZE)
            for number, (thing, box) in enumerate(zip(scene.objects, boxes, strict=True)):
                folder = out / split / thing.colour
                folder.mkdir(parents=True, exist_ok=True)
                picture.crop(tuple(map(int, box))).save(folder / f"{i}-{number}.png")


if __name__ == "__main__":
    main()
