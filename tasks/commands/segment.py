"""``family segment CKPT IMAGE... --out DIR``: the class of each pixel, as masks and overlays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch.nn.functional as F
from PIL import Image

from tasks.commands.pictures import find_pictures, make_folder, output_names, parser, prepared
from tasks.runs.checkpoints import load_checkpoint
from tasks.training.pictures import class_map, legend, overlay, palette, stack


def run(arguments: list[str]) -> None:
    """Write ``NAME-mask.png`` (class ids) and ``NAME.png`` (overlay); print the share of each class."""
    options_parser = parser("segment", __doc__)
    options_parser.add_argument("--out", type=Path, default=Path("segmented"))
    options = options_parser.parse_args(arguments)
    paths = find_pictures(options.images)
    loaded = load_checkpoint(options.checkpoint, "Segmentation")
    labels = loaded.labels
    make_folder(options.out)
    names = iter(output_names(paths))
    for path, picture, pixel_values in prepared(loaded, paths):
        logits = loaded.model(pixel_values)
        whole = F.interpolate(logits, (picture.height, picture.width), mode="bilinear")
        ids = class_map(whole)[0].numpy()
        mask = Image.fromarray(ids, "P")
        mask.putpalette([value for colour in palette(len(labels)) for value in colour])
        name = next(names)
        mask.save(options.out / f"{name}-mask.png")
        drawn = overlay(picture, ids, len(labels))
        stack([drawn, legend(labels, max(260, drawn.width))]).save(options.out / f"{name}.png")
        shares = np.bincount(ids.flatten(), minlength=len(labels)) / ids.size
        order = [i for i in shares.argsort()[::-1] if shares[i] > 0]
        print(f"{path}\t" + ", ".join(f"{labels[i]} {shares[i]:.1%}" for i in order))
    print(f"Masks and overlays are in {options.out}.")
