"""``family classify CKPT IMAGE...`` or ``family classify CKPT "a text"...``: the likeliest classes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tasks.commands.pictures import find_pictures, prepared
from tasks.commands.sentences import given_or_read
from tasks.data.text_classification import encode_texts
from tasks.errors import UserError, at_least
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
    labels = loaded.labels
    classify = of_texts if loaded.task == "TextClassification" else of_pictures
    for name, logits in classify(loaded, options.inputs):
        if logits is None:
            print(flush=True)
            continue
        best = logits.softmax(-1).topk(min(options.top, len(labels)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        shown = ", ".join(f"{labels[i]} {chance:.3f}" for i, chance in pairs)
        print(f"{name}\t{shown}", flush=True)


def of_pictures(loaded: Loaded, places: list[str]) -> Iterator[tuple[str, Tensor]]:
    """The path of each picture, and its logits ``(classes)``."""
    if not places:
        raise UserError("this model classifies pictures: give files, or folders of them.")
    for path, _, pixel_values in prepared(loaded, find_pictures([Path(p) for p in places])):
        yield str(path), loaded.model(pixel_values)[0]


def of_texts(loaded: Loaded, texts: list[str]) -> Iterator[tuple[str, Tensor | None]]:
    """Each text, and its logits ``(classes)``; None for an empty one."""
    tokenizer, max_tokens = loaded.tokenizer("text"), loaded.assets["max_tokens"]
    for text in given_or_read(texts):
        if not text.strip():
            yield text, None
            continue
        with torch.inference_mode():
            yield text, loaded.model(*encode_texts(tokenizer, [text], max_tokens))[0]
