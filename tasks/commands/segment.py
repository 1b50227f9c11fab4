"""``family segment CKPT IMAGE... --out DIR``: the class of each pixel, as masks and overlays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tasks.commands.pictures import find_pictures, make_folder, output_names, parser
from tasks.data.images import read_image
from tasks.errors import user_errors
from tasks.runs.checkpoints import load_checkpoint
from tasks.training.pictures import legend, overlay, palette, stack


def run(arguments: list[str]) -> None:
    """Write ``NAME-mask.png`` (class ids) and ``NAME.png`` (overlay); print the share of each class."""
    options_parser = parser("segment", __doc__)
    options_parser.add_argument("--out", type=Path, default=Path("segmented"))
    options = options_parser.parse_args(arguments)
    paths = find_pictures(options.images)
    loaded = load_checkpoint(options.checkpoint, "Segmentation")
    labels = loaded.labels or []
    make_folder(options.out)
    for path, name in zip(paths, output_names(paths), strict=True):
        picture = read_image(path, background=loaded.preprocess.background)
        with user_errors():
            ids = loaded.predict([picture])[0].numpy()
        if ids.dtype == np.uint8:
            mask = Image.fromarray(ids, "P")
            mask.putpalette([value for colour in palette(len(labels)) for value in colour])
        else:  # more classes than a palette has colours
            mask = Image.fromarray(ids.astype(np.uint16))
        mask.save(options.out / f"{name}-mask.png")
        drawn = overlay(picture, ids, len(labels))
        stack([drawn, legend(labels, max(260, drawn.width))]).save(options.out / f"{name}.png")
        shares = np.bincount(ids.flatten(), minlength=len(labels)) / ids.size
        order = [i for i in shares.argsort()[::-1] if shares[i] > 0]
        print(f"{path}\t" + ", ".join(f"{labels[i]} {shares[i]:.1%}" for i in order))
    print(f"Masks and overlays are in {options.out}.")
