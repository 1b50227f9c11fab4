"""``family classify CKPT IMAGE...``: the likeliest classes of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tasks.checkpoints import load_checkpoint
from tasks.commands.pictures import find_pictures, parser, prepared
from tasks.errors import at_least


def run(arguments: list[str], folders: Iterable[Path]) -> None:
    """Print a line for each picture: path, then class and probability, likeliest first."""
    options_parser = parser("classify", __doc__)
    options_parser.add_argument("--top", type=int, default=3, help="classes shown")
    options = options_parser.parse_args(arguments)
    at_least(1, of="--", top=options.top)
    paths = find_pictures(options.images)
    loaded = load_checkpoint(options.checkpoint, "ImageClassification")
    labels = loaded.labels
    for path, _, pixel_values in prepared(loaded, paths):
        chances = loaded.model(pixel_values)[0].softmax(-1)
        best = chances.topk(min(options.top, len(labels)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        print(f"{path}\t" + ", ".join(f"{labels[i]} {chance:.3f}" for i, chance in pairs))
