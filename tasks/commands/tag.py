"""``family tag SOURCE "a text"...`` or ``family tag SOURCE FILE``: the spans of texts, such as names."""

from __future__ import annotations

import sys
from pathlib import Path

from family.inference.batches import TEXTS, chunks
from tasks.commands.examples import command_parser
from tasks.commands.results import Results, format_option
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import PLACE, names_files, texts_of
from tasks.errors import UserError, user_errors


def run(arguments: list[str]) -> None:
    """Write the spans of each text: as a line, itself, then each with its label and score; as a record,
    with where they stand in it; of CSV, a row each."""
    parser = command_parser(
        "tag",
        __doc__,
        'family tag SOURCE "Ann lives in Paris"',
        "family tag SOURCE texts.txt --out tags.jsonl",
    )
    parser.add_argument("source", help="a .ckpt file, the folder of a run, or a published model")
    parser.add_argument(
        "inputs",
        nargs="*",
        help="texts, or files of them: .txt, one a line, .csv, .tsv, .jsonl (none: lines from standard "
        "input)",
    )
    parser.add_argument(
        "--column", help="of tables, that of the texts (default: text, sentence ...)"
    )
    parser.add_argument("--out", type=Path, help="a .jsonl or .csv file (default: standard output)")
    format_option(parser)
    model_options(parser, TEXTS)
    options = parser.parse_args(arguments)
    loaded = open_model(options.source, options, "Tagging")
    if loaded.labels is None:
        raise UserError(f"{options.source} has no names of tags.")
    size = 1 if not options.inputs and sys.stdin.isatty() else options.batch_size
    places = PLACE if names_files(options.inputs) else ()
    with Results(options.format, options.out, options.inputs, first=places) as results:
        for batch in chunks(texts_of(options.inputs, options.column), size):
            with user_errors():
                texts = [one.text for one in batch]
                answers = loaded.predict(texts, batch_size=options.batch_size)
            for one, spans in zip(batch, answers, strict=True):
                if results.kind == "csv":
                    for span in spans:
                        results.write({**one.record(), **span}, "")
                    continue
                said = ", ".join(f"{s['word']} [{s['label']} {s['score']:.3f}]" for s in spans)
                results.write({**one.record(), "spans": spans}, f"{one.text}\t{said}")
