"""``family segment CKPT IMAGE... --out DIR``: the class of each pixel, as masks and overlays; with
``--instances`` the objects instead, of a model that tells them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from family.files import write_picture
from family.inference.classes import distinct
from tasks.commands.detect import COCO_RESULTS, image_ids
from tasks.commands.pictures import find_pictures, make_folder, output_names, parser, read_pictures
from tasks.commands.results import Results, format_option, not_their_folder, write_json
from tasks.commands.running import open_model
from tasks.errors import UserError, between, user_errors
from tasks.training.coco_masks import run_lengths
from tasks.training.pictures import legend, mask_picture, overlay, stack


def run(arguments: list[str]) -> None:
    """Write ``NAME-mask.png`` (class ids as in the data that the model was trained on) and ``NAME.png``
    (overlay); print the share of each class. Of instances the mask has their numbers in ``NAME.json``, from 1
    on, and ``coco-results.json`` all, as COCO writes results."""
    options_parser = parser("segment", __doc__, "family segment RUN picture.png --out masks")
    options_parser.add_argument(
        "--out", type=Path, default=Path("segmented"), help="a folder, made if need be"
    )
    options_parser.add_argument("--instances", action="store_true", help="objects, not classes")
    options_parser.add_argument(
        "--threshold", type=float, help="the least score of an instance (default: 0.5)"
    )
    format_option(options_parser, file=False)
    options = options_parser.parse_args(arguments)
    asked: dict[str, Any] = {}
    if options.instances:
        asked["instances"] = True
    if options.threshold is not None:
        if not options.instances:
            raise UserError("--threshold is the least score of an instance: give --instances too.")
        between(0, 1, of="--", threshold=options.threshold)
        asked["threshold"] = options.threshold
    paths = find_pictures(options.images)
    not_their_folder(options.out, paths)
    loaded = open_model(options.checkpoint, options, "Segmentation")
    labels = loaded.labels or []
    outside = loaded.assets.get("category_ids") or list(range(len(labels)))
    make_folder(options.out)
    names = dict(zip(paths, output_names(paths, ("", "-mask")), strict=True))
    numbers = dict(zip(paths, image_ids(paths), strict=True))
    everything: list[dict[str, Any]] = []
    with Results(options.format) as results:
        for batch in read_pictures(paths, loaded, options):
            with user_errors():
                pictures = [picture for _, picture in batch]
                answers = loaded.predict(pictures, batch_size=options.batch_size, **asked)
            for (path, picture), answer in zip(batch, answers, strict=True):
                place = options.out / names[path]
                if options.instances:
                    rows = write_instances(picture, answer, path, place)
                    about = {"image_id": numbers[path], "file_name": path.name}
                    shown = ("category_id", "segmentation", "score")
                    everything += [{**about, **{n: row[n] for n in shown}} for row in rows]
                    said = ", ".join(f"{row['label']} {row['score']:.2f}" for row in rows)
                    if results.kind == "csv":
                        for row in rows:
                            results.write({"file": str(path), **without_mask(row)}, "")
                    else:
                        found = [without_mask(row) for row in rows]
                        results.write({"file": str(path), "objects": found}, f"{path}\t{said}")
                    continue
                ids, file = answer.numpy(), place.with_name(f"{place.name}-mask.png")
                write_picture(file, mask_picture(ids, outside))
                drawn = overlay(picture, ids, len(labels))
                save_with_legend(drawn, labels, place)
                shares = np.bincount(ids.flatten(), minlength=len(labels)) / ids.size
                order = [i for i in shares.argsort()[::-1] if shares[i] > 0]
                said = ", ".join(f"{labels[i]} {shares[i]:.1%}" for i in order)
                share = dict(zip(distinct(labels), shares.tolist(), strict=True))
                record = {"file": str(path), "mask": str(file), "shares": share}
                results.write(record, f"{path}\t{said}")
        if options.instances:
            write_json(options.out / COCO_RESULTS, everything)
        results.say(f"Masks and overlays are in {options.out}.")


def write_instances(
    picture: Image.Image, found: list[dict[str, Any]], path: Path, place: Path
) -> list[dict[str, Any]]:
    """Write what was found in a picture, and give it as plain values.

    Args:
        place: of the files, without their endings.
    """
    rows = []
    numbers = np.zeros((picture.height, picture.width), np.int64)
    for number, one in reversed([*enumerate(found, 1)]):  # the best lie on top
        numbers[one["mask"].numpy()] = number
    for number, one in enumerate(found, 1):
        kind = {"number": number, "label": one["label"], "category_id": one["category_id"]}
        lengths = run_lengths(one["mask"][None])[0]
        area = {"area": int(one["mask"].sum()), "segmentation": lengths}
        rows.append({**kind, "score": round(one["score"], 4), **area})
    masks = mask_picture(numbers, range(len(found) + 1))
    write_picture(place.with_name(f"{place.name}-mask.png"), masks)
    said = [f"{row['number']} {row['label']} {row['score']:.2f}" for row in rows]
    save_with_legend(overlay(picture, numbers - 1, max(1, len(found))), said, place)
    size = {"height": picture.height, "width": picture.width}
    write_json(place.with_name(f"{place.name}.json"), {"file": str(path), **size, "objects": rows})
    return rows


def without_mask(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "segmentation"}


def save_with_legend(drawn: Image.Image, names: list[str], place: Path) -> None:
    """``NAME.png``."""
    page = stack([drawn, legend(names, max(260, drawn.width))])
    write_picture(place.with_name(f"{place.name}.png"), page)
