"""``family translate CKPT "a sentence"``: or sentences from standard input, a line at a time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from tasks.checkpoints import load_checkpoint


def run(arguments: list[str], folders: Iterable[Path]) -> None:
    """Translate and print, one line for each sentence."""
    parser = argparse.ArgumentParser("family translate", description=__doc__)
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument("sentences", nargs="*", help="none: lines from standard input")
    parser.add_argument("--beams", type=int, default=4)
    options = parser.parse_args(arguments)
    loaded = load_checkpoint(options.checkpoint, "Translation")
    source, target = loaded.tokenizer("source"), loaded.tokenizer("target")
    model: Any = loaded.model
    for sentence in options.sentences or map(str.strip, sys.stdin):
        ids = torch.tensor([[*source.encode(sentence), source.eos_id]])
        tokens = model.generate(
            ids,
            max_new_tokens=2 * ids.shape[1] + 10,
            beams=options.beams,
            stop_ids=(target.eos_id,),
            pad_id=target.pad_id,
        )
        print(target.decode(tokens[0].tolist()), flush=True)
