"""``family segment CKPT IMAGE... --out DIR``: the class of each pixel, as masks and overlays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from family.inference.classes import distinct
from tasks.commands.pictures import find_pictures, make_folder, output_names, parser, read_pictures
from tasks.commands.results import Results, format_option, not_their_folder
from tasks.commands.running import open_model
from tasks.errors import user_errors
from tasks.training.pictures import legend, mask_picture, overlay, stack


def run(arguments: list[str]) -> None:
    """Write ``NAME-mask.png`` (class ids as in the data that the model was trained on) and ``NAME.png``
    (overlay); print the share of each class."""
    options_parser = parser("segment", __doc__)
    options_parser.add_argument("--out", type=Path, default=Path("segmented"))
    format_option(options_parser)
    options = options_parser.parse_args(arguments)
    paths = find_pictures(options.images)
    not_their_folder(options.out, paths)
    loaded = open_model(options.checkpoint, options, "Segmentation")
    labels = loaded.labels or []
    outside = loaded.assets.get("category_ids") or list(range(len(labels)))
    make_folder(options.out)
    names = dict(zip(paths, output_names(paths, ("", "-mask")), strict=True))
    with Results(options.format) as results:
        for batch in read_pictures(paths, loaded, options):
            with user_errors():
                pictures = [picture for _, picture in batch]
                answers = loaded.predict(pictures, batch_size=options.batch_size)
            for (path, picture), answer in zip(batch, answers, strict=True):
                ids, file = answer.numpy(), options.out / f"{names[path]}-mask.png"
                mask_picture(ids, outside).save(file)
                drawn = overlay(picture, ids, len(labels))
                page = stack([drawn, legend(labels, max(260, drawn.width))])
                page.save(options.out / f"{names[path]}.png")
                shares = np.bincount(ids.flatten(), minlength=len(labels)) / ids.size
                order = [i for i in shares.argsort()[::-1] if shares[i] > 0]
                said = ", ".join(f"{labels[i]} {shares[i]:.1%}" for i in order)
                share = dict(zip(distinct(labels), shares.tolist(), strict=True))
                record = {"file": str(path), "mask": str(file), "shares": share}
                results.write(record, f"{path}\t{said}")
        results.say(f"Masks and overlays are in {options.out}.")
