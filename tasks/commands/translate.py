"""``family translate CKPT "a sentence"``: or sentences from standard input, a line at a time."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from family.models.member import longest_text
from tasks.commands.sentences import given_or_read
from tasks.data.translation import most_new_tokens, sources
from tasks.errors import UserError, at_least
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
    source, target = loaded.tokenizer("source"), loaded.tokenizer("target")
    model: Any = loaded.model
    if not hasattr(model, "generate"):
        raise UserError(
            f"{options.checkpoint} holds a {type(model).__name__}, which cannot translate: it has "
            "no method generate."
        )
    longest = longest_text(model)
    for sentence in given_or_read(options.sentences):
        if not sentence.strip():
            print(flush=True)
            continue
        ids = torch.tensor(sources(source, [sentence]))
        if ids.shape[1] > longest:
            raise UserError(
                f"a sentence of {ids.shape[1]} tokens does not fit the model's max_tokens={longest}."
            )
        tokens = model.generate(
            ids,
            max_new_tokens=most_new_tokens(ids.shape[1], getattr(model, "longest_target", longest)),
            beams=options.beams,
            stop_ids=(target.eos_id,),
            pad_id=target.pad_id,
        )
        print(target.decode(tokens[0].tolist()), flush=True)
