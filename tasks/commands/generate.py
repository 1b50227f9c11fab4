"""``family generate CKPT --prompt "..."``: continue a text, token by token."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from family import Sampling
from tasks.checkpoints import load_checkpoint
from tasks.errors import UserError


def run(arguments: list[str], folders: Iterable[Path]) -> None:
    """Print each continuation as it grows; without a prompt, read one a line."""
    parser = argparse.ArgumentParser("family generate", description=__doc__)
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument("--prompt", help="none: lines from standard input")
    parser.add_argument("--max_new_tokens", type=int, default=None)
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy")
    parser.add_argument("--top_k", type=int, default=0)
    parser.add_argument("--top_p", type=float, default=1.0)
    parser.add_argument("--min_p", type=float, default=0.0)
    parser.add_argument("--repetition_penalty", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        sampling = Sampling(
            options.repetition_penalty,
            options.temperature,
            options.top_k,
            options.top_p,
            options.min_p,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    loaded = load_checkpoint(options.checkpoint, "LanguageModeling")
    model: Any = loaded.model
    tokenizer = loaded.tokenizer("text")
    generator = torch.Generator().manual_seed(options.seed)
    prompts = [options.prompt] if options.prompt is not None else map(str.strip, sys.stdin)
    for prompt in prompts:
        ids = torch.tensor([tokenizer.encode(prompt)])
        room = model.config.max_tokens - ids.shape[1]
        count = min(200, room) if options.max_new_tokens is None else options.max_new_tokens
        written: list[int] = []
        print(prompt, end="", flush=True)
        shown = 0
        try:
            for token in model.stream(
                ids, max_new_tokens=max(count, 1), sampling=sampling, generator=generator
            ):
                written.append(int(token))
                # Decoded whole: a character may be made of several tokens.
                text = tokenizer.decode(written)
                if not text.endswith("\ufffd"):
                    print(text[shown:], end="", flush=True)
                    shown = len(text)
        except ValueError as error:
            raise UserError(str(error)) from None
        print(flush=True)
