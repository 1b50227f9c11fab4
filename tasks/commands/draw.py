"""``family draw RUN "a red circle left of a blue square" -n 8 --out DIR``: pictures from sentences."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from family import Sampling
from family.files import write_picture
from family.inference.batches import PICTURES
from family.inference.drawing import check_sentences
from tasks.commands.examples import command_parser
from tasks.commands.pictures import make_folder
from tasks.commands.results import Results, format_option
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import PLACE, Text, names_files, texts_of
from tasks.errors import UserError, at_least, user_errors
from tasks.runs.checkpoints import Loaded
from tasks.training.pictures import sheet, stack

SHEET = "sheet.png"
COLUMNS = 8
LETTERS = 40
"""Of a sentence, in the names of its pictures."""
SAMPLING = ("temperature", "top_k", "top_p")
"""Options of a model that draws token by token."""
STEPS = ("steps", "sampler")
"""Of one that starts from noise."""


def run(arguments: list[str]) -> None:
    """Write each picture and a sheet of all; print their files, ranked or in the order of drawing."""
    options = parser().parse_args(arguments)
    at_least(1, of="-", n=options.n)
    drawing = {name: v for name in (*SAMPLING, *STEPS) if (v := getattr(options, name)) is not None}
    with user_errors():
        Sampling(**{name: value for name, value in drawing.items() if name in SAMPLING})
    if options.out.is_file():
        make_folder(options.out)  # which refuses it
    loaded = open_model(options.checkpoint, options, "TextToImage")
    given = fitting(loaded, drawing)
    said = list(texts_of(options.sentences, options.column))
    texts = [one.text.strip() for one in said]
    if "" in texts or not texts:
        raise UserError(
            f"{'a sentence is empty' if texts else 'there is no sentence'}: say what to draw."
        )
    judge = None if options.rank is None else open_model(options.rank, options, "ImageText")
    with user_errors():
        for model in [loaded.model] + ([] if judge is None else [judge.model]):
            check_sentences(model, texts)
        rows = loaded.predict(
            texts,
            num=options.n,
            guidance=options.guidance,
            seed=options.seed,
            batch_size=options.batch_size,
            **given,
        )
    make_folder(options.out)
    places = PLACE if names_files(options.sentences) else ()
    with Results(options.format, first=places) as results:
        pages = [
            write(one, number, pictures, judge, options, results, len(texts))
            for number, (one, pictures) in enumerate(zip(said, rows, strict=True), 1)
        ]
        write_picture(options.out / SHEET, stack(pages))
        results.say(f"The sheet is {options.out / SHEET}.")


def write(
    one: Text,
    number: int,
    pictures: Sequence[Image.Image],
    judge: Loaded | None,
    options: argparse.Namespace,
    results: Results,
    count: int,
) -> Image.Image:
    """Write the pictures of one sentence, the best first where somebody judges them; returns their part
    of the sheet.

    Args:
        number: of the sentence, among ``count``.
    """
    text = one.text.strip()
    similarity: list[float | None] = [None] * len(pictures)
    if judge is not None:
        with user_errors():
            similarity = judge.predict(list(pictures), [text])[:, 0].tolist()
    order = sorted(range(len(pictures)), key=lambda i: -(similarity[i] or 0.0))
    name = re.sub(r"\W+", "-", text.lower()).strip("-")[:LETTERS].strip("-")
    name = f"{number:0{len(str(count))}}-{name}" if count > 1 else name or "picture"
    captions = []
    for rank, i in enumerate(order, 1):
        file = options.out / f"{name}-{rank:0{len(str(options.n))}}.png"
        write_picture(file, pictures[i])
        found = similarity[i]
        score = "" if found is None else f" {found:.3f}"
        captions.append(f"{rank}.{score}\n{text}")
        known = {} if found is None else {"similarity": found}
        results.write(
            {**one.record(), "rank": rank, "picture": str(file), **known}, f"{file}{score}"
        )
    return sheet([pictures[i] for i in order], captions, columns=COLUMNS)


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = command_parser("draw", __doc__, 'family draw RUN "a red circle" -n 8 --out drawn')
    made.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    made.add_argument(
        "sentences",
        nargs="*",
        help="or files of them: .txt, one a line, .csv, .tsv, .jsonl (none: lines from standard input)",
    )
    made.add_argument("--column", help="of tables, that of the sentences")
    made.add_argument("-n", type=int, default=8, help="pictures of each sentence (default: 8)")
    made.add_argument("--out", type=Path, default=Path("drawn"), help="a folder (default: drawn)")
    made.add_argument(
        "--guidance",
        type=float,
        help="how far the sentence is overstated, such as 3 (default: as it is said)",
    )
    made.add_argument("--seed", type=int, default=0, help="of the random numbers")
    made.add_argument(
        "--rank", metavar="CLIP_RUN", help="a CLIP of ours, which puts the best first"
    )
    tokens = made.add_argument_group("of a model that draws token by token")
    tokens.add_argument("--temperature", type=float, help="0 is greedy (default: 1)")
    tokens.add_argument(
        "--top_k", type=int, help="only the likeliest so many tokens are drawn from"
    )
    tokens.add_argument(
        "--top_p",
        type=float,
        help="only the likeliest tokens that come to this probability together",
    )
    noise = made.add_argument_group("of a model that starts from noise")
    noise.add_argument("--steps", type=int, help="of the way from noise to a picture")
    noise.add_argument("--sampler", help="euler or heun")
    format_option(made, file=False)
    model_options(made, PICTURES)
    return made


def fitting(loaded: Loaded, drawing: dict[str, Any]) -> dict[str, Any]:
    """Options of the command as the model's ``draw`` takes them.

    Raises:
        UserError: one that it does not know.
    """
    known = inspect.signature(loaded.model.draw).parameters
    samples = "sampling" in known
    for name in drawing:
        if not (samples if name in SAMPLING else name in known):
            ours = [f"--{n}" for n in (SAMPLING if samples else STEPS) if samples or n in known]
            raise UserError(
                f"--{name}: a {type(loaded.model).__name__} draws otherwise; it takes "
                f"{', '.join([*ours, '--guidance'])}."
            )
    if not samples:
        return drawing
    return {"sampling": Sampling(**{"temperature": 1.0, **drawing})} if drawing else {}
