"""``family search SOURCE "a red circle" FOLDER``: rank pictures by a sentence; or ``family search SOURCE
"somebody eats" texts.txt``: rank texts by how near they are to one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from heapq import nlargest
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

from family.files import write_picture
from family.inference.batches import chunks
from tasks.commands.pictures import find_pictures, make_folder, parser, read_pictures
from tasks.commands.results import Results, format_option, not_an_input
from tasks.commands.running import open_model
from tasks.commands.sentences import LINES, Text, checked, named_file, texts_of
from tasks.errors import UserError, at_least, user_errors
from tasks.runs.checkpoints import Loaded
from tasks.training.pictures import sheet

SHEET = Path("search.png")
TABLES = (".jsonl", ".csv")
"""Files of texts that were found."""
PLACES = (
    "picture files, or folders of them; or for a model of texts their files: .txt, one a line, .csv, "
    ".tsv, .jsonl, or folders of .txt"
)


def run(arguments: list[str]) -> None:
    """Print the nearest with their cosine similarity; of pictures, write a contact sheet."""
    options_parser = parser(
        "search",
        __doc__,
        'family search RUN "a red circle" pictures/',
        'family search SOURCE "somebody eats" texts.txt',
        sentence="what to look for",
        places=PLACES,
    )
    options_parser.add_argument("--top", "-k", type=int, default=12, help="how many (default: 12)")
    options_parser.add_argument(
        "--column", help="of tables, that of the texts (default: text, sentence ...)"
    )
    options_parser.add_argument(
        "--out",
        type=Path,
        help=f"of pictures the contact sheet (default: {SHEET}), of texts a .jsonl or .csv file "
        "(default: standard output)",
    )
    format_option(options_parser)
    options = options_parser.parse_args(arguments)
    at_least(1, of="--", top=options.top)
    sentence = checked(options.sentence)
    if not sentence.strip():
        raise UserError("the sentence is empty: say what to look for.")
    if named_file(sentence) is not None:
        raise UserError(f"{sentence} is a file: say in words what to look for.")
    if options.out is not None and options.out.suffix not in TABLES:
        check_picture(options.out)
    loaded = open_model(options.checkpoint, options, "ImageText", "SentenceEmbedding")
    (search_texts if loaded.task == "SentenceEmbedding" else search_pictures)(
        loaded, sentence, options
    )


# --- Texts ---


def search_texts(loaded: Loaded, sentence: str, options: argparse.Namespace) -> None:
    """Write the nearest texts, where they stand and how near they are."""
    files = text_files(options.images)
    with Results(options.format, options.out, files) as results, user_errors():
        wanted = F.normalize(loaded.embed([sentence])[0], dim=0)
        best = nlargest(
            options.top,
            scored(loaded, wanted, texts_of([*map(str, files)], options.column), options),
            key=lambda found: found[0],
        )
        if not best:
            raise UserError(f"{', '.join(map(str, files))} holds no text to search in.")
        for place, (value, one) in enumerate(best, 1):
            record = {"rank": place, "similarity": value, **one.record()}
            results.write(record, f"{place:3}. {value:.3f}  {one.file}:{one.line}  {one.text}")


def scored(
    loaded: Loaded, wanted: torch.Tensor, texts: Iterator[Text], options: argparse.Namespace
) -> Iterator[tuple[float, Text]]:
    """The cosine of each text that is not empty with what is wanted, ``(dim)``, in batches."""
    size = options.batch_size
    for some in chunks((one for one in texts if one.text), size):
        rows = F.normalize(loaded.embed([one.text for one in some], batch_size=size), dim=1)
        yield from zip((rows @ wanted).tolist(), some, strict=True)


def text_files(places: list[Path]) -> list[Path]:
    """The files themselves, and all ``.txt`` inside folders.

    Raises:
        UserError: no file of texts.
    """
    found: list[Path] = []
    for place in places:
        inside = sorted(place.rglob(f"*{LINES}")) if place.is_dir() else []
        if place.is_dir() and not inside:
            raise UserError(f"{place} holds no {LINES} file to search in.")
        if not place.is_dir() and named_file(str(place)) is None:
            raise UserError(
                f"{place} is no file: the model searches in texts, by their files or folders."
            )
        found += inside or [place]
    return found


# --- Pictures ---


def check_picture(out: Path) -> str:
    """The kind of picture that a name says; one that none can be written under is refused.

    Raises:
        UserError: see above.
    """
    kind = Image.registered_extensions().get(out.suffix.lower())
    if kind not in Image.SAVE or out.is_dir():
        raise UserError(f"--out {out} is no name of a picture, such as found.png.")
    return str(kind)


def search_pictures(loaded: Loaded, sentence: str, options: argparse.Namespace) -> None:
    """Print the nearest pictures, and draw them on a contact sheet."""
    out = options.out or SHEET
    kind = check_picture(out)
    found = find_pictures(options.images)
    not_an_input(out, found)
    make_folder(out.parent)
    paths: list[Path] = []
    rows = []
    for batch in read_pictures(found, loaded, options):
        with user_errors():
            pictures = [picture for _, picture in batch]
            size = options.batch_size
            rows.append(loaded.embed(pictures=pictures, batch_size=size))
        paths += [path for path, _ in batch]
    with user_errors():
        similarity = torch.cat(rows) @ loaded.embed([sentence])[0]
    best = similarity.topk(min(options.top, len(paths)))
    order, values = best.indices.tolist(), best.values.tolist()
    shown = [
        one for part in read_pictures([paths[i] for i in order], loaded, options) for one in part
    ]
    captions = [
        f"{place}. {value:.3f}\n{paths[i].name}"
        for place, (i, value) in enumerate(zip(order, values, strict=True), 1)
    ]
    write_picture(out, sheet([picture for _, picture in shown], captions), kind)
    with Results(options.format) as results:
        for place, (i, value) in enumerate(zip(order, values, strict=True), 1):
            record = {"rank": place, "similarity": value, "file": str(paths[i])}
            results.write(record, f"{place:3}. {value:.3f}  {paths[i]}")
        results.say(f"The contact sheet is {out}.")
