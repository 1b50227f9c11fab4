"""``family detect CKPT IMAGE... --out DIR``: boxes, drawn and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from family.files import write_picture
from tasks.commands.pictures import find_pictures, make_folder, output_names, parser, read_pictures
from tasks.commands.results import Results, format_option, not_their_folder, write_json
from tasks.commands.running import open_model
from tasks.errors import between, user_errors
from tasks.training.pictures import draw_boxes

COCO_RESULTS = "coco-results.json"


def run(arguments: list[str]) -> None:
    """Write ``NAME.png`` with the boxes drawn and ``NAME.json`` of each picture, and ``coco-results.json`` of
    all, an array as COCO writes results; print what was found."""
    options_parser = parser("detect", __doc__, "family detect RUN pictures/ --out found")
    options_parser.add_argument(
        "--out", type=Path, default=Path("detected"), help="a folder, made if need be"
    )
    options_parser.add_argument(
        "--threshold",
        type=float,
        help="the least score (default: what validation found best, or 0.3)",
    )
    format_option(options_parser, file=False)
    options = options_parser.parse_args(arguments)
    if options.threshold is not None:
        between(0, 1, of="--", threshold=options.threshold)
    paths = find_pictures(options.images)
    not_their_folder(options.out, paths)
    loaded = open_model(options.checkpoint, options, "Detection")
    labels = loaded.labels or []
    make_folder(options.out)
    names = dict(zip(paths, output_names(paths), strict=True))
    numbers = dict(zip(paths, image_ids(paths), strict=True))
    least = {} if options.threshold is None else {"threshold": options.threshold}
    everything: list[dict[str, Any]] = []
    with Results(options.format) as results:
        for batch in read_pictures(paths, loaded, options):
            with user_errors():
                pictures = [picture for _, picture in batch]
                answers = loaded.predict(pictures, batch_size=options.batch_size, **least)
            for (path, picture), found in zip(batch, answers, strict=True):
                boxes = torch.tensor([one["box"] for one in found]).view(-1, 4)
                kinds = [labels.index(one["label"]) for one in found]
                scores = [one["score"] for one in found]
                drawn = draw_boxes(picture, boxes, kinds, labels, scores)
                write_picture(options.out / f"{names[path]}.png", drawn)
                rows = [rounded(one) for one in found]
                size = {"height": picture.height, "width": picture.width}
                record = {"file": str(path), **size, "objects": rows}
                write_json(options.out / f"{names[path]}.json", record)
                everything += [as_coco(one, path, numbers[path]) for one in found]
                if results.kind == "csv":
                    for row in rows:
                        results.write({"file": str(path), **row}, "")
                else:
                    said = ", ".join(f"{row['label']} {row['score']:.2f}" for row in rows)
                    results.write(record, f"{path}\t{said}")
        write_json(options.out / COCO_RESULTS, everything)
        results.say(
            f"Pictures with boxes, and JSON (x0, y0, x1, y1 in pixels), are in {options.out}."
        )


def image_ids(paths: Sequence[Path]) -> list[int]:
    """Their ids in COCO's results: the numbers that all files are called by, as COCO's own are, else
    1, 2, 3 ...; the names stand beside them."""
    stems = [path.stem for path in paths]
    numbers = [int(stem) for stem in stems if stem.isascii() and stem.isdigit()]
    return numbers if len({*numbers}) == len(paths) else list(range(1, len(paths) + 1))


def as_coco(found: dict[str, Any], path: Path, image_id: int) -> dict[str, Any]:
    """An object as COCO writes results: x, y, width and height of its box."""
    x0, y0, x1, y1 = found["box"]
    return {
        "image_id": image_id,
        "file_name": path.name,
        "category_id": found["category_id"],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "score": found["score"],
    }


def rounded(found: dict[str, Any]) -> dict[str, Any]:
    """An object with no more digits than a reader wants."""
    box = [round(side, 2) for side in found["box"]]
    return {**found, "score": round(found["score"], 4), "box": box}
