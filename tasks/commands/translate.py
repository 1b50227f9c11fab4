"""``family translate CKPT "a sentence"``: or sentences from files or standard input, a line at a time."""

from __future__ import annotations

import argparse

from family.inference.batches import TEXTS, chunks
from tasks.commands.results import Results, format_option
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import texts_of
from tasks.errors import at_least, user_errors


def run(arguments: list[str]) -> None:
    """Translate and print, one line for each sentence."""
    parser = argparse.ArgumentParser("family translate", description=__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument(
        "sentences",
        nargs="*",
        help="or files of them: .txt, one a line, .csv, .tsv, .jsonl (none: lines from standard input)",
    )
    parser.add_argument("--column", help="of tables, that of the sentences")
    parser.add_argument("--beams", type=int, default=4)
    format_option(parser)
    model_options(parser, TEXTS)
    options = parser.parse_args(arguments)
    at_least(1, of="--", beams=options.beams)
    loaded = open_model(options.checkpoint, options, "Translation")
    # Lines of standard input are answered as they come.
    size = options.batch_size if options.sentences else 1
    with Results(options.format) as results:
        for some in chunks(texts_of(options.sentences, options.column), size):
            with user_errors():
                found = loaded.predict([one.text for one in some], beams=options.beams)
            for one, text in zip(some, found, strict=True):
                where = {"file": one.file, "line": one.line} if one.file else {}
                results.write({**where, "text": one.text, "translation": text}, text)
