"""``family embed SOURCE "a text"...``: texts as vectors, near each other where they mean the same."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.commands.sentences import given_or_read
from tasks.data.pairs import encode_texts
from tasks.runs.checkpoints import Loaded, load_checkpoint

TEXTS = 32
"""Texts of a batch."""


def run(arguments: list[str]) -> None:
    """Print a line of JSON for each text: ``{"text": ..., "embedding": [...]}``."""
    parser = argparse.ArgumentParser("family embed", description=__doc__)
    parser.add_argument("source", help="a model that encodes sentences, or CLIP")
    parser.add_argument("texts", nargs="*", help="none: lines from standard input")
    options = parser.parse_args(arguments)
    loaded = load_checkpoint(options.source, "SentenceEmbedding", "ImageText")
    size = 1 if not options.texts and sys.stdin.isatty() else TEXTS
    for texts in batches(given_or_read(options.texts), size):
        with torch.inference_mode():
            embeddings = embed(loaded, texts)
        for text, embedding in zip(texts, embeddings.tolist(), strict=True):
            # Nine digits tell all numbers of 32 bits apart.
            values = [float(f"{value:.9g}") for value in embedding]
            print(json.dumps({"text": text, "embedding": values}, ensure_ascii=False), flush=True)


def embed(loaded: Loaded, texts: Sequence[str]) -> Tensor:
    """``(texts, dim)``; CLIP's are brought to length 1, as it compares them."""
    model: Any = loaded.model
    tokenizer = loaded.tokenizer("text")
    if loaded.task == "SentenceEmbedding":
        return model.encode_text(*tokenizer.batch(texts, model.max_tokens))
    inputs = encode_texts(tokenizer, texts, loaded.assets["max_tokens"])
    return F.normalize(model.encode_text(*inputs), dim=-1)


def batches(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    """So many at a time."""
    while batch := list(islice(texts, size)):
        yield batch
