"""``family caption SOURCE PICTURE...``: a sentence about each picture."""

from __future__ import annotations

from tasks.commands.pictures import find_pictures, parser, read_pictures
from tasks.commands.results import Results, format_option
from tasks.commands.running import open_model
from tasks.errors import UserError, at_least, user_errors


def run(arguments: list[str]) -> None:
    """Print the file and the sentence of each."""
    options_parser = parser(
        "caption",
        __doc__,
        "family caption RUN picture.png",
        "family caption RUN pictures/ --format jsonl",
    )
    options_parser.add_argument("--beams", type=int, help="without, as the model says, or 1")
    options_parser.add_argument(
        "--begin", default="", metavar="TEXT", help="what each sentence begins with, such as de:"
    )
    format_option(options_parser, file=False)
    options = options_parser.parse_args(arguments)
    if options.beams is not None:
        at_least(1, of="--", beams=options.beams)
    paths = find_pictures(options.images)
    loaded = open_model(options.checkpoint, options, "Captioning", "VisionChat")
    begun = {"begin": options.begin} if options.begin else {}
    if begun and loaded.task != "Captioning":
        raise UserError(
            f"--begin is for models of Captioning, and {loaded.origin} is for {loaded.task}."
        )
    with Results(options.format) as results:
        for batch in read_pictures(paths, loaded, options):
            with user_errors():
                pictures = [picture for _, picture in batch]
                how = {"beams": options.beams, "batch_size": options.batch_size}
                made = loaded.predict(pictures, **how, **begun)
            for (path, _), text in zip(batch, made, strict=True):
                results.write({"file": str(path), "caption": text}, f"{path}\t{text}")
