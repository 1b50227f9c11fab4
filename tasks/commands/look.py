"""``family look SOURCE INPUT``: where a model attends as it reads, translates, classifies, detects or draws, as a page.

INPUT is a text, a picture, a clip, a sound or a table of numeric series, whichever the model reads; a page shows
attention by layer and head, the alignment of a translation, the logit lens of a language model, what speaks for a
class or a number, what each box or segment read, and by which patches of a drawing each word was read.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from family.files import write_text
from tasks.commands.examples import command_parser
from tasks.commands.results import not_an_input
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import checked
from tasks.commands.series import chosen, series_of
from tasks.errors import UserError, at_least, user_errors
from tasks.runs.checkpoints import Loaded


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "look",
        __doc__,
        'family look RUN "un cercle rouge" --out look.html',
        'family look RUN picture.png --question "how many stars?"',
        'family look RUN "a moving film" --png look.png',
    )
    made.add_argument("checkpoint", help="a run, a .ckpt file, or a published model")
    made.add_argument(
        "input",
        help="a text; the file of a picture, clip or sound; a folder of frames; a table of numeric series",
    )
    made.add_argument("--question", help="of a picture; or a text that may tell of it")
    made.add_argument(
        "--pair", help="the second text; the text that a question is about; an answer"
    )
    made.add_argument(
        "--task",
        help="of a model for everything: answer, caption, classify, detect, translate, draw",
    )
    made.add_argument("--series", help="the name of one in a table of series (default: the first)")
    made.add_argument("--from", dest="source", metavar="LANGUAGE", help="of a translation")
    made.add_argument("--to", dest="target", metavar="LANGUAGE", help="of a translation")
    made.add_argument("--layer", type=int, help="shown at first, and in the figure (default: last)")
    made.add_argument("--head", type=int, help="the same of heads (default: the mean of all)")
    made.add_argument("--out", type=Path, default=Path("look.html"), help="the page (look.html)")
    made.add_argument("--png", type=Path, metavar="FILE", help="a figure too")
    model_options(made, None)
    return made


def run(arguments: list[str]) -> None:
    """Write the page, and a figure if one is asked for; print what the model says."""
    options = parser().parse_args(arguments)
    for name in ("layer", "head"):
        if getattr(options, name) is not None:
            at_least(1, of="--", **{name: getattr(options, name)})
    for name in ("out", "png"):
        place: Path | None = getattr(options, name)
        if place is not None and (place.is_dir() or not place.parent.is_dir()):
            raise UserError(f"--{name} {place} must be a file in a folder that is there.")
        if place is not None and place.exists():
            not_an_input(place, [options.input], f"--{name}")
    if options.png is not None:
        not_an_input(options.png, [options.out], "--png")
    loaded = open_model(options.checkpoint, options)
    # Here, so that --help is quick.
    from family.look.page import page_of
    from family.look.views import reads, view_of

    with user_errors():
        needs = reads(loaded, options.task)
        view = view_of(loaded, **inputs(options, needs, loaded))
        title = options.input if "text" in needs and "picture" not in needs else options.question
        title = title or options.series or Path(options.input).name
        page = page_of(view, title, options.layer, options.head)
    if options.png is not None:
        from family.look.figure import save_figure

        with user_errors():
            save_figure(view, options.png, options.layer, options.head)
    write_text(options.out, page)
    print(" \N{MIDDLE DOT} ".join(view.answer))
    print(f"The page is {options.out}.")


def inputs(options: argparse.Namespace, needs: tuple[str, ...], loaded: Loaded) -> dict[str, Any]:
    """What is shown, by the names of :func:`family.look.view_of`.

    Raises:
        UserError: a picture that does not exist or cannot be read, or an option that is for others.
    """
    from tasks.data.images import read_image

    given: dict[str, Any] = {}
    if "picture" in needs:
        if not Path(options.input).is_file():
            raise UserError(f"{options.input} is no file: this model sees pictures.")
        given["picture"] = read_image(Path(options.input))
        if "text" in needs and options.question is None:
            raise UserError(
                'this model reads a text with the picture: give --question "how many?".'
            )
        given["text"] = options.question
    elif "series" in needs:
        found = series_of(loaded, options.input)
        given["series"] = chosen(found, options.series, options.input).values
        given["text"] = options.question
    elif "text" not in needs:
        given[needs[0]], given["text"] = Path(options.input), options.question
    else:
        given["text"] = checked(options.input)
        if options.question is not None:
            raise UserError(
                "this model reads texts, and no pictures to ask of: leave --question out."
            )
    for name in ("pair", "source", "target", "task"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    if options.series is not None and "series" not in needs:
        raise UserError("this model reads no tables of series: leave --series out.")
    if "text" not in needs and given.get("text") is not None:
        raise UserError("this model is not asked: leave --question out.")
    return {name: value for name, value in given.items() if value is not None}
