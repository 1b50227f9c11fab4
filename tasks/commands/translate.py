"""``family translate CKPT "a sentence"``: or sentences from standard input, a line at a time."""

from __future__ import annotations

import argparse

from tasks.commands.sentences import given_or_read
from tasks.errors import at_least, user_errors
from tasks.runs.checkpoints import load_checkpoint


def run(arguments: list[str]) -> None:
    """Translate and print, one line for each sentence."""
    parser = argparse.ArgumentParser("family translate", description=__doc__)
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument("sentences", nargs="*", help="none: lines from standard input")
    parser.add_argument("--beams", type=int, default=4)
    options = parser.parse_args(arguments)
    at_least(1, of="--", beams=options.beams)
    loaded = load_checkpoint(options.checkpoint, "Translation")
    for sentence in given_or_read(options.sentences):
        with user_errors():
            print(loaded.predict([sentence], beams=options.beams)[0], flush=True)
