"""``family embed SOURCE "a text"...``: texts, or with CLIP pictures, as vectors, near each other where
they mean the same."""

from __future__ import annotations

import sys
from pathlib import Path

from family.inference.batches import TEXTS, chunks
from tasks.commands.examples import command_parser
from tasks.commands.pictures import find_pictures, on_bad_option, read_pictures
from tasks.commands.results import Results, format_option
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import PLACE, checked, names_files, texts_of
from tasks.commands.vectors import ENDING, Vectors
from tasks.data.images import IMAGE_ENDINGS
from tasks.errors import UserError, user_errors
from tasks.runs.checkpoints import Loaded


def run(arguments: list[str]) -> None:
    """Write a record for each input: ``{"text": ..., "embedding": [...]}``, or "file" for "text"."""
    parser = command_parser(
        "embed",
        __doc__,
        'family embed SOURCE "a sentence"',
        "family embed SOURCE texts.txt --out vectors.jsonl",
        "family embed CLIP pictures/ --out vectors.npy",
    )
    parser.add_argument("source", help="a model that encodes sentences, or CLIP")
    parser.add_argument(
        "inputs",
        nargs="*",
        help="texts, or files of them: .txt, one a line, .csv, .tsv, .jsonl; for CLIP also pictures, "
        "or folders of them (none: lines from standard input)",
    )
    parser.add_argument(
        "--column", help="of tables, that of the texts (default: text, sentence ...)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="a .jsonl or .csv file; or .npy, an array of them, with what each row is of in a .txt beside "
        "it (default: standard output)",
    )
    format_option(parser, "jsonl")
    on_bad_option(parser)
    model_options(parser, TEXTS)
    options = parser.parse_args(arguments)
    loaded = open_model(options.source, options, "SentenceEmbedding", "ImageText")
    places = PLACE if names_files(options.inputs) else ()
    array = options.out is not None and options.out.suffix == ENDING
    if array and options.format:
        raise UserError(f"--out {options.out} is an array: leave --format {options.format} out.")
    results: Vectors | Results
    if array:
        results = Vectors(options.out, options.inputs)
    else:
        results = Results(options.format, options.out, options.inputs, "jsonl", places)
    with results:
        if seen(loaded, options.inputs):
            paths = find_pictures([Path(place) for place in options.inputs])
            for batch in read_pictures(paths, loaded, options):
                pictures = [picture for _, picture in batch]
                with user_errors():
                    rows = loaded.embed(pictures=pictures, batch_size=options.batch_size).tolist()
                for (path, _), row in zip(batch, rows, strict=True):
                    results.write({"file": str(path), "embedding": digits(row)}, "")
            return
        size = 1 if not options.inputs and sys.stdin.isatty() else options.batch_size
        for texts in chunks(texts_of(options.inputs, options.column), size):
            with user_errors():
                some = [one.text for one in texts]
                rows = loaded.embed(some, batch_size=options.batch_size).tolist()
            for one, row in zip(texts, rows, strict=True):
                results.write({**one.record(), "embedding": digits(row)}, "")


def seen(loaded: Loaded, inputs: list[str]) -> bool:
    """Whether the inputs are pictures, for a model that sees.

    Raises:
        UserError: pictures and texts together.
    """
    if loaded.task != "ImageText":
        return False
    kinds = {is_place(checked(one)) for one in inputs}
    if len(kinds) > 1:
        raise UserError("the inputs are pictures and texts: embed them in two calls.")
    return kinds == {True}


def is_place(given: str) -> bool:
    """Whether an input names a picture, or a folder."""
    try:
        path = Path(given)
        return path.is_dir() or (path.suffix.lower() in IMAGE_ENDINGS and path.is_file())
    except (OSError, ValueError):
        return False


def digits(row: list[float]) -> list[float]:
    """Nine digits tell all numbers of 32 bits apart."""
    return [float(f"{value:.9g}") for value in row]
