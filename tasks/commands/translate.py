"""``family translate CKPT "a sentence"``: or sentences from files or standard input, a line at a time."""

from __future__ import annotations

from pathlib import Path

from family.inference.batches import TEXTS, chunks
from tasks.commands.examples import command_parser
from tasks.commands.results import Results, format_option
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import PLACE, names_files, texts_of
from tasks.errors import at_least, user_errors


def run(arguments: list[str]) -> None:
    """Translate and print, one line for each sentence."""
    parser = command_parser(
        "translate",
        __doc__,
        'family translate RUN "un cercle rouge"',
        "family translate RUN texts.txt --out translated.jsonl",
        'family translate SOURCE "a red circle" --from en --to de',
    )
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument(
        "sentences",
        nargs="*",
        help="or files of them: .txt, one a line, .csv, .tsv, .jsonl (none: lines from standard input)",
    )
    parser.add_argument("--column", help="of tables, that of the sentences")
    parser.add_argument(
        "--to", metavar="LANGUAGE", help="of a model of several: what to translate into, such as de"
    )
    parser.add_argument(
        "--from", dest="source", metavar="LANGUAGE", help="what the sentences are in"
    )
    parser.add_argument("--beams", type=int, help="without, as the model says, or 4")
    parser.add_argument("--out", type=Path, metavar="FILE", help="of the translations")
    format_option(parser)
    model_options(parser, TEXTS)
    options = parser.parse_args(arguments)
    if options.beams is not None:
        at_least(1, of="--", beams=options.beams)
    loaded = open_model(options.checkpoint, options, "Translation")
    # Lines of standard input are answered as they come.
    size = options.batch_size if options.sentences else 1
    places = PLACE if names_files(options.sentences) else ()
    with Results(options.format, options.out, options.sentences, first=places) as results:
        for some in chunks(texts_of(options.sentences, options.column), size):
            with user_errors():
                texts = [one.text for one in some]
                found = loaded.predict(
                    texts,
                    beams=options.beams,
                    batch_size=options.batch_size,
                    source=options.source,
                    target=options.to,
                )
            for one, text in zip(some, found, strict=True):
                results.write({**one.record(), "translation": text}, text)
