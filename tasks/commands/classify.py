"""``family classify CKPT IMAGE...`` or ``family classify CKPT "a text"...``: the likeliest classes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from family.inference.batches import PICTURES, TEXTS, chunks
from family.inference.classes import (
    described,
    distinct,
    picture_probabilities,
    text_probabilities,
)
from tasks.commands.pictures import find_pictures, on_bad_option, read_pictures
from tasks.commands.results import Results, format_option
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import PLACE, names_files, texts_of
from tasks.errors import UserError, at_least, user_errors
from tasks.runs.checkpoints import Loaded

Answer = tuple[str, dict[str, Any], Tensor | None]
"""What to call an input, where it was found, and how likely its classes are; None for an empty text."""


def run(arguments: list[str]) -> None:
    """Write an answer for each input: as a line, itself, then class and probability, likeliest first;
    as a record, label, score and the probabilities of all classes."""
    parser = argparse.ArgumentParser("family classify", description=__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument(
        "inputs",
        nargs="*",
        help="picture files, or folders of them; or texts, or files of them: .txt, one a line, .csv, "
        ".tsv, .jsonl (none: lines from standard input)",
    )
    parser.add_argument("--top", type=int, default=3, help="classes shown in a line")
    parser.add_argument(
        "--column", help="of tables, that of the texts (default: text, sentence ...)"
    )
    parser.add_argument("--out", type=Path, help="a .jsonl or .csv file (default: standard output)")
    format_option(parser)
    on_bad_option(parser)
    model_options(parser, min(PICTURES, TEXTS))
    options = parser.parse_args(arguments)
    at_least(1, of="--", top=options.top)
    loaded = open_model(options.checkpoint, options, "ImageClassification", "TextClassification")
    classify = of_texts if loaded.task == "TextClassification" else of_pictures
    places = PLACE if names_files(options.inputs) else ()
    with Results(options.format, options.out, options.inputs, first=places) as results:
        for name, record, chances in classify(loaded, options):
            shown, answer = "", nothing(loaded.labels or ())
            if chances is not None:
                answer = described(loaded.model, chances[None])[0]
                best = chances.topk(min(options.top, len(chances)))
                labels = list(answer["probabilities"])
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                shown = f"{name}\t" + ", ".join(f"{labels[i]} {chance:.3f}" for i, chance in pairs)
            results.write(record | answer, shown)


def nothing(labels: Sequence[str]) -> dict[str, Any]:
    """What a record of an empty text holds in place of an answer: the same fields, without values."""
    return {"label": None, "score": None, "probabilities": dict.fromkeys(distinct(labels))}


def of_pictures(loaded: Loaded, options: argparse.Namespace) -> Iterator[Answer]:
    """Of each picture the path, and how likely its classes are ``(classes)``."""
    if not options.inputs:
        raise UserError("this model classifies pictures: give files, or folders of them.")
    paths = find_pictures([Path(place) for place in options.inputs])
    for batch in read_pictures(paths, loaded, options):
        with user_errors():
            pictures = [picture for _, picture in batch]
            rows = picture_probabilities(loaded.model, pictures, options.batch_size)
        for (path, _), chances in zip(batch, rows, strict=True):
            yield str(path), {"file": str(path)}, chances


def of_texts(loaded: Loaded, options: argparse.Namespace) -> Iterator[Answer]:
    """Of each text itself, and how likely its classes are ``(classes)``."""
    size = 1 if not options.inputs and sys.stdin.isatty() else options.batch_size
    for batch in chunks(texts_of(options.inputs, options.column), size):
        some = [one.text for one in batch if one.text.strip()]
        with user_errors():
            rows = iter(text_probabilities(loaded.model, some, options.batch_size))
        for one in batch:
            chances = next(rows) if one.text.strip() else None
            yield one.text, one.record(), chances
