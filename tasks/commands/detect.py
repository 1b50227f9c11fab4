"""``family detect CKPT IMAGE... --out DIR``: boxes, drawn and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tasks.commands.pictures import find_pictures, make_folder, output_names, parser
from tasks.data.images import read_image
from tasks.errors import between, user_errors
from tasks.runs.checkpoints import load_checkpoint
from tasks.training.pictures import draw_boxes


def run(arguments: list[str]) -> None:
    """Write ``NAME.png`` with the boxes drawn and ``NAME.json``; print what was found."""
    options_parser = parser("detect", __doc__)
    options_parser.add_argument("--out", type=Path, default=Path("detected"))
    options_parser.add_argument("--threshold", type=float, default=0.3, help="the least score")
    options = options_parser.parse_args(arguments)
    between(0, 1, of="--", threshold=options.threshold)
    paths = find_pictures(options.images)
    loaded = load_checkpoint(options.checkpoint, "Detection")
    labels = loaded.labels or []
    make_folder(options.out)
    for path, name in zip(paths, output_names(paths), strict=True):
        picture = read_image(path, background=loaded.preprocess.background)
        with user_errors():
            found = loaded.predict([picture], threshold=options.threshold)[0]
        boxes = torch.tensor([one["box"] for one in found]).view(-1, 4)
        kinds = [labels.index(one["label"]) for one in found]
        scores = [one["score"] for one in found]
        draw_boxes(picture, boxes, kinds, labels, scores).save(options.out / f"{name}.png")
        rows = [rounded(one) for one in found]
        size = {"height": picture.height, "width": picture.width}
        record = {"file": str(path), **size, "objects": rows}
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        (options.out / f"{name}.json").write_text(text, encoding="utf-8")
        print(f"{path}\t" + ", ".join(f"{row['label']} {row['score']:.2f}" for row in rows))
    print(f"Pictures with boxes, and JSON (x0, y0, x1, y1 in pixels), are in {options.out}.")


def rounded(found: dict[str, Any]) -> dict[str, Any]:
    """An object with no more digits than a reader wants."""
    box = [round(side, 2) for side in found["box"]]
    return {**found, "score": round(found["score"], 4), "box": box}
