"""``family detect CKPT IMAGE... --out DIR``: boxes, drawn and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from family.heads.detection import postprocess
from tasks.commands.pictures import find_pictures, make_folder, output_names, parser, prepared
from tasks.errors import between
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
    labels, ids = loaded.labels, loaded.assets["category_ids"]
    classification = getattr(loaded.model, "classification", "softmax")
    make_folder(options.out)
    names = iter(output_names(paths))
    for path, picture, pixel_values in prepared(loaded, paths):
        size = picture.height, picture.width
        found = postprocess(loaded.model(pixel_values), [size], classification)[0]
        sure = found["scores"] >= options.threshold
        boxes, kinds = found["boxes"][sure], found["labels"][sure].tolist()
        scores = found["scores"][sure].tolist()
        rows = [
            {
                "label": labels[kind],
                "category_id": ids[kind],
                "score": round(score, 4),
                "box": [round(side, 2) for side in box],
            }
            for kind, score, box in zip(kinds, scores, boxes.tolist(), strict=True)
        ]
        name = next(names)
        draw_boxes(picture, boxes, kinds, labels, scores).save(options.out / f"{name}.png")
        record = {"file": str(path), "height": size[0], "width": size[1], "objects": rows}
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        (options.out / f"{name}.json").write_text(text, encoding="utf-8")
        print(f"{path}\t" + ", ".join(f"{row['label']} {row['score']:.2f}" for row in rows))
    print(f"Pictures with boxes, and JSON (x0, y0, x1, y1 in pixels), are in {options.out}.")
