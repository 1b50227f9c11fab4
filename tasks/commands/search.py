"""``family search CKPT "a red circle" FOLDER``: rank pictures by a sentence."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from tasks.commands.pictures import find_pictures, make_folder, parser, read_pictures
from tasks.commands.results import Results, format_option, not_an_input
from tasks.commands.running import open_model
from tasks.commands.sentences import checked, named_file
from tasks.errors import UserError, at_least, user_errors
from tasks.training.pictures import sheet


def run(arguments: list[str]) -> None:
    """Print the nearest pictures with their cosine similarity, and write a contact sheet."""
    options_parser = parser("search", __doc__, sentence="what to look for")
    options_parser.add_argument("--top", type=int, default=12)
    options_parser.add_argument("--out", type=Path, default=Path("search.png"))
    format_option(options_parser)
    options = options_parser.parse_args(arguments)
    at_least(1, of="--", top=options.top)
    sentence = checked(options.sentence)
    if not sentence.strip():
        raise UserError("the sentence is empty: say what to look for.")
    if named_file(sentence) is not None:
        raise UserError(f"{sentence} is a file: say in words what to look for.")
    kind = Image.registered_extensions().get(options.out.suffix.lower())
    if kind not in Image.SAVE or options.out.is_dir():
        raise UserError(f"--out {options.out} is no name of a picture, such as found.png.")
    found = find_pictures(options.images)
    not_an_input(options.out, found)
    loaded = open_model(options.checkpoint, options, "ImageText")
    make_folder(options.out.parent)
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
    sheet([picture for _, picture in shown], captions).save(options.out)
    with Results(options.format) as results:
        for place, (i, value) in enumerate(zip(order, values, strict=True), 1):
            record = {"rank": place, "similarity": value, "file": str(paths[i])}
            results.write(record, f"{place:3}. {value:.3f}  {paths[i]}")
        results.say(f"The contact sheet is {options.out}.")
