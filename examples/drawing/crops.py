"""What the judge of drawn pictures learns from, of true pictures: the pictures with their boxes, as COCO has them, and
things cut out of them, a folder each ("red star").

    python examples/drawing/crops.py OUT
    family fit --config detection/shapes --data.root OUT/pictures --run_folder runs/detector
    family fit --config image_classification/shapes_cnn --data.root OUT/things --data.image_size 24 \
        --run_folder runs/things
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
    (out / "pictures" / "annotations").mkdir(parents=True, exist_ok=True)
    for split, count in COUNTS.items():
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        (out / "pictures" / split).mkdir(exist_ok=True)
        for i in range(count):
            scene = shapes.sample(i, split=split)
            picture, (boxes, kinds) = shapes.draw(scene, SIZE), shapes.boxes(scene, SIZE)
            picture.save(out / "pictures" / split / f"{i}.png")
            images.append({"id": i, "file_name": f"{i}.png", "width": SIZE, "height": SIZE})
            for thing, box, kind in zip(scene.objects, boxes.tolist(), kinds.tolist(), strict=True):
                x0, y0, x1, y1 = box
                sides = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
                one = {"id": len(annotations), "image_id": i, "category_id": kind, "iscrowd": 0}
                annotations.append({**one, **sides})
                folder = out / "things" / split / f"{thing.colour} {thing.shape}"
                folder.mkdir(parents=True, exist_ok=True)
                moved = [side + shift.choice((-1, 0, 0, 1)) for side in box]
                cut(picture, moved).save(folder / f"{len(annotations)}.png")
        categories = [{"id": i, "name": name} for i, name in enumerate(shapes.CLASSES)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        file = out / "pictures" / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(content), encoding="utf-8")


if __name__ == "__main__":
    main()
