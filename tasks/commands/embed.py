"""``family embed SOURCE "a text"...``: texts as vectors, near each other where they mean the same."""

from __future__ import annotations

import argparse
import json
import sys

from family.inference.batches import TEXTS, chunks
from tasks.commands.sentences import given_or_read
from tasks.errors import user_errors
from tasks.runs.checkpoints import load_checkpoint


def run(arguments: list[str]) -> None:
    """Print a line of JSON for each text: ``{"text": ..., "embedding": [...]}``."""
    parser = argparse.ArgumentParser("family embed", description=__doc__)
    parser.add_argument("source", help="a model that encodes sentences, or CLIP")
    parser.add_argument("texts", nargs="*", help="none: lines from standard input")
    options = parser.parse_args(arguments)
    loaded = load_checkpoint(options.source, "SentenceEmbedding", "ImageText")
    size = 1 if not options.texts and sys.stdin.isatty() else TEXTS
    for texts in chunks(given_or_read(options.texts), size):
        with user_errors():
            embeddings = loaded.embed(texts)
        for text, embedding in zip(texts, embeddings.tolist(), strict=True):
            # Nine digits tell all numbers of 32 bits apart.
            values = [float(f"{value:.9g}") for value in embedding]
            print(json.dumps({"text": text, "embedding": values}, ensure_ascii=False), flush=True)
