"""``family classify CKPT IMAGE...``, ``family classify CKPT CLIP...`` (folders of frames, or video files) or
``family classify CKPT "a text"...`` or ``family classify CKPT TABLE`` of numeric series: the likeliest classes or
labels, or the numbers of a regression, or the steps that follow; of pairs of texts, ``--pair "another"``; of pictures by a CLIP those of ``--labels "cat,dog"``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
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
from family.inference.clips import clip_probabilities
from family.inference.series import judge_series
from family.inference.zero_shot import TEMPLATES, label_vectors, zero_shot
from family.inputs.pictures import WHITE
from tasks.commands.examples import command_parser
from tasks.commands.pictures import (
    find_clips,
    find_pictures,
    on_bad_option,
    read_all,
    read_pictures,
)
from tasks.commands.results import Results, format_option
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import PLACE, Text, names_files, pairs_of, texts_of
from tasks.commands.series import series_of
from tasks.data.labelled_clips import read_clip
from tasks.errors import UserError, at_least, user_errors
from tasks.runs.checkpoints import Loaded

READ = ("TextClassification", "TextRegression")
"""Tasks whose inputs are texts."""
NAMED = "ImageText"
"""The task whose models take any labels."""
SERIES = "Series"
Answer = tuple[str, dict[str, Any], Tensor | None]
"""What to call an input, where it was found, and how likely its classes are, or its number, as the head's
``problem_type`` has it; None for an empty text."""


def run(arguments: list[str]) -> None:
    """Write an answer for each input: as a line, itself, then class and probability, likeliest first;
    as a record, label, score and the probabilities of all classes; where labels do not exclude each
    other, those of each by itself. Of a regression, the value."""
    parser = command_parser(
        "classify",
        __doc__,
        "family classify RUN picture.png",
        'family classify RUN "a moving film"',
        "family classify RUN texts.csv --out classes.jsonl",
        "family classify RUN series.csv --out forecasts.jsonl",
        'family classify CLIP pictures/ --labels "cat,dog" --template "a photo of a {}" --out classes.csv',
    )
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument(
        "inputs",
        nargs="*",
        help="picture files, or folders of them; or clips, each a folder of frames or a video file, or "
        "folders of them; or texts, or files of them: .txt, one a line, .csv, "
        ".tsv, .jsonl (none: lines from standard input); or tables of numeric series, parquet too",
    )
    parser.add_argument(
        "--pair", action="append", default=[], help="the second text of each that is given"
    )
    parser.add_argument(
        "--pair_column",
        help="of tables, that of the second texts (default: sentence2, hypothesis ...)",
    )
    parser.add_argument(
        "--labels",
        help="of a CLIP, which needs no training for them: names with commas between them",
    )
    parser.add_argument(
        "--template",
        action="append",
        default=[],
        help=f"a sentence with {{}} for the label; several are averaged (default: {TEMPLATES[0]!r})",
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
    if options.template and options.labels is None:
        raise UserError("--template is for --labels, which a CLIP needs.")
    tasks = (*SEEN, *READ, SERIES, NAMED) if options.labels is None else (NAMED,)
    loaded = open_model(options.checkpoint, options, *tasks)
    if loaded.task == SERIES:
        return tell_series(loaded, options)
    classify = SEEN.get(loaded.task, of_named if loaded.task == NAMED else of_texts)
    number = loaded.task.endswith("Regression")
    places = PLACE if names_files(options.inputs) else ()
    with Results(options.format, options.out, options.inputs, first=places) as results:
        for name, record, chances in classify(loaded, options):
            shown, answer = "", nothing(loaded.labels or ())
            if number:
                answer = {"value": None if chances is None else float(chances)}
                shown = "" if chances is None else f"{name}\t{float(chances):.3f}"
            elif chances is not None:
                labels = labels_of(options)
                answer = (
                    named(labels, chances) if labels else described(loaded.model, chances[None])[0]
                )
                best = chances.topk(min(options.top, len(chances)))
                labels = list(answer["probabilities"])
                pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                shown = f"{name}\t" + ", ".join(f"{labels[i]} {chance:.3f}" for i, chance in pairs)
            results.write(record | answer, shown)


def nothing(labels: Sequence[str]) -> dict[str, Any]:
    """What a record of an empty text holds in place of an answer: the same fields, without values."""
    return {"label": None, "score": None, "probabilities": dict.fromkeys(distinct(labels))}


def refuse_others(options: argparse.Namespace, of: str, what: str) -> None:
    """Refuse what is for texts.

    Raises:
        UserError: no inputs, or pairs.
    """
    if not options.inputs:
        raise UserError(f"this model classifies {of}: give {what}.")
    if options.pair or options.pair_column:
        raise UserError(f"this model classifies {of}, which have no --pair.")


def of_pictures(loaded: Loaded, options: argparse.Namespace) -> Iterator[Answer]:
    """Of each picture the path, and how likely its classes are ``(classes)``."""
    refuse_others(options, "pictures", "files, or folders of them")
    paths = find_pictures([Path(place) for place in options.inputs])
    for batch in read_pictures(paths, loaded, options):
        with user_errors():
            pictures = [picture for _, picture in batch]
            rows = picture_probabilities(loaded.model, pictures, options.batch_size)
        for (path, _), chances in zip(batch, rows, strict=True):
            yield str(path), {"file": str(path)}, chances


def labels_of(options: argparse.Namespace) -> list[str]:
    """Those that were given; none where the model has its own."""
    return [label.strip() for label in (options.labels or "").split(",") if options.labels]


def named(labels: Sequence[str], chances: Tensor) -> dict[str, Any]:
    """The record of one answer."""
    best = int(chances.argmax())
    known = dict(zip(labels, chances.tolist(), strict=True))
    return {"label": labels[best], "score": known[labels[best]], "probabilities": known}


def of_named(loaded: Loaded, options: argparse.Namespace) -> Iterator[Answer]:
    """Of each picture the path, and how likely the labels are that were given, ``(labels)``."""
    refuse_others(options, "pictures", "files, or folders of them")
    if options.labels is None:
        raise UserError('this model has no classes of its own: give --labels, such as "cat,dog".')
    with user_errors():
        vectors = label_vectors(loaded.model, labels_of(options), options.template or TEMPLATES)
    paths = find_pictures([Path(place) for place in options.inputs])
    for batch in read_pictures(paths, loaded, options):
        with user_errors():
            pictures = [picture for _, picture in batch]
            rows = zero_shot(loaded.model, pictures, vectors, options.batch_size)
        for (path, _), chances in zip(batch, rows, strict=True):
            yield str(path), {"file": str(path)}, chances


def of_clips(loaded: Loaded, options: argparse.Namespace) -> Iterator[Answer]:
    """The same of each clip."""
    refuse_others(options, "clips", "folders of frames, or video files")
    frames = loaded.assets.get("frames") or loaded.model.frames
    background = getattr(loaded.preprocess, "background", WHITE)
    paths = find_clips([Path(place) for place in options.inputs])
    read = partial(read_clip, frames=frames, background=background)
    for batch in read_all(paths, read, options, "clips"):
        rows = clip_probabilities(
            loaded.model, [clip for _, clip in batch], options.batch_size, frames
        )
        for (path, _), chances in zip(batch, rows, strict=True):
            yield str(path), {"file": str(path)}, chances


SEEN = {
    "ImageClassification": of_pictures,
    "ImageRegression": of_pictures,
    "VideoClassification": of_clips,
}
"""By the tasks whose inputs are files."""


def tell_series(loaded: Loaded, options: argparse.Namespace) -> None:
    """Write of each series of tables its name and what the model says of it."""
    refuse_others(options, "numeric series", "tables of them")
    with Results(options.format, options.out, options.inputs) as results:
        for place in options.inputs:
            for some in chunks(series_of(loaded, place), options.batch_size):
                with user_errors():
                    values = [one.values for one in some]
                    answers = judge_series(loaded.model, values, options.batch_size)
                for one, answer in zip(some, answers, strict=True):
                    record = {"file": place, "series": one.name, **answer}
                    results.write(record, f"{one.name}\t{told(answer, options.top)}")


def told(answer: dict[str, Any], top: int) -> str:
    """An answer as a line: classes and how likely they are, or numbers by target."""
    if "probabilities" in answer:
        best = sorted(answer["probabilities"].items(), key=lambda one: -one[1])[:top]
        return ", ".join(f"{name} {chance:.3f}" for name, chance in best)
    return ", ".join(f"{name} {value}" for name, value in answer.items())


def of_texts(loaded: Loaded, options: argparse.Namespace) -> Iterator[Answer]:
    """Of each text itself, or of each pair both, and how likely its classes are ``(classes)``, or its
    number."""
    asked = bool(options.pair or options.pair_column)
    pairs = asked or bool(loaded.assets.get("pairs"))
    with user_errors():
        loaded.check_pairs(pairs)
    texts = texts_of(options.inputs, options.column)
    if pairs:
        texts = pairs_of(options.inputs, options.pair, options.column, options.pair_column)
    size = 1 if not options.inputs and sys.stdin.isatty() else options.batch_size
    for batch in chunks(texts, size):
        some = [one for one in batch if not empty(one)]
        seconds = [str(one.pair) for one in some] if pairs else None
        with user_errors():
            firsts = [one.text for one in some]
            answers = iter(text_probabilities(loaded.model, firsts, options.batch_size, seconds))
        for one in batch:
            name = one.text if one.pair is None else f"{one.text}\t{one.pair}"
            yield name, one.record(), None if empty(one) else next(answers)


def empty(one: Text) -> bool:
    """Whether nothing is to be judged: no text, or a side of a pair is missing."""
    return not one.text.strip() or (one.pair is not None and not one.pair.strip())
