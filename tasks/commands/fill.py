"""``family fill SOURCE "The [MASK] circle"``: the likeliest tokens for each gap of a text."""

from __future__ import annotations

import sys
from pathlib import Path

from family.inference.batches import TEXTS, chunks
from family.inference.masked import fill_masks
from tasks.commands.examples import command_parser
from tasks.commands.results import Results, format_option
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import PLACE, names_files, texts_of
from tasks.errors import at_least, user_errors


def run(arguments: list[str]) -> None:
    """Write an answer for each gap: as a line, the text, then token and probability, likeliest first; as a
    record, the number of the gap and its tokens."""
    parser = command_parser("fill", __doc__, 'family fill SOURCE "a red [MASK]"')
    parser.add_argument(
        "checkpoint", help="a .ckpt file, the folder of a run, or a published model"
    )
    parser.add_argument(
        "texts",
        nargs="*",
        help="with [MASK], or the model's own mask token, for each gap; or files of them: .txt, one a "
        "line, .csv, .tsv, .jsonl (none: lines from standard input)",
    )
    parser.add_argument("--top", type=int, default=5, help="tokens of each gap")
    parser.add_argument(
        "--column", help="of tables, that of the texts (default: text, sentence ...)"
    )
    parser.add_argument("--out", type=Path, help="a .jsonl or .csv file (default: standard output)")
    format_option(parser)
    model_options(parser, TEXTS)
    options = parser.parse_args(arguments)
    at_least(1, of="--", top=options.top)
    loaded = open_model(options.checkpoint, options, "MaskedLanguageModeling")
    size = 1 if not options.texts and sys.stdin.isatty() else options.batch_size
    places = PLACE if names_files(options.texts) else ()
    with Results(options.format, options.out, options.texts, first=places) as results:
        for batch in chunks(texts_of(options.texts, options.column), size):
            some = [one for one in batch if one.text.strip()]
            with user_errors():
                texts = [one.text for one in some]
                found = fill_masks(loaded.model, texts, options.top, options.batch_size)
            for one, gaps in zip(some, found, strict=True):
                for number, tokens in enumerate(gaps, 1):
                    record = {**one.record(), "gap": number, "tokens": tokens}
                    shown = ", ".join(f"{t['token'].strip()} {t['score']:.3f}" for t in tokens)
                    results.write(record, f"{one.text}\t{shown}")
