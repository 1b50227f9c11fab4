"""``family classify CKPT IMAGE...`` or ``family classify CKPT "a text"...``: the likeliest classes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from family.inference.classes import picture_probabilities, text_probabilities
from tasks.commands.pictures import find_pictures
from tasks.commands.sentences import given_or_read
from tasks.errors import UserError, at_least, user_errors
from tasks.runs.checkpoints import Loaded, load_checkpoint


def run(arguments: list[str]) -> None:
    """Print a line for each input: itself, then class and probability, likeliest first."""
    parser = argparse.ArgumentParser("family classify", description=__doc__)
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument(
        "inputs",
        nargs="*",
        help="picture files, or folders of them; or texts (none: lines from standard input)",
    )
    parser.add_argument("--top", type=int, default=3, help="classes shown")
    options = parser.parse_args(arguments)
    at_least(1, of="--", top=options.top)
    loaded = load_checkpoint(options.checkpoint, "ImageClassification", "TextClassification")
    classify = of_texts if loaded.task == "TextClassification" else of_pictures
    for name, chances in classify(loaded, options.inputs):
        if chances is None:
            print(flush=True)
            continue
        labels = loaded.labels or [str(i) for i in range(len(chances))]
        best = chances.topk(min(options.top, len(chances)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        shown = ", ".join(f"{labels[i]} {chance:.3f}" for i, chance in pairs)
        print(f"{name}\t{shown}", flush=True)


def of_pictures(loaded: Loaded, places: list[str]) -> Iterator[tuple[str, Tensor]]:
    """The path of each picture, and how likely its classes are ``(classes)``."""
    if not places:
        raise UserError("this model classifies pictures: give files, or folders of them.")
    for path in find_pictures([Path(place) for place in places]):
        with user_errors():
            chances = picture_probabilities(loaded.model, [path])
        yield str(path), chances[0]


def of_texts(loaded: Loaded, texts: list[str]) -> Iterator[tuple[str, Tensor | None]]:
    """Each text, and how likely its classes are ``(classes)``; None for an empty one."""
    for text in given_or_read(texts):
        with user_errors():
            some = [text] if text.strip() else []
            chances = text_probabilities(loaded.model, some)
        yield text, chances[0] if some else None
