"""``family generate CKPT --prompt "..."``: continue a text, token by token."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from family import Sampling
from family.models.member import longest_text
from tasks.commands.sentences import given_or_read
from tasks.commands.streaming import show
from tasks.errors import UserError, at_least
from tasks.runs.checkpoints import load_checkpoint


def run(arguments: list[str]) -> None:
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
    if options.max_new_tokens is not None:
        at_least(1, of="--", max_new_tokens=options.max_new_tokens)
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
    if not hasattr(model, "stream"):
        raise UserError(
            f"{options.checkpoint} holds a {type(model).__name__}, which cannot generate: it has "
            "no method stream."
        )
    tokenizer = loaded.tokenizer("text")
    generator = torch.Generator().manual_seed(options.seed)
    for prompt in given_or_read([] if options.prompt is None else [options.prompt]):
        if not prompt and options.prompt is None:
            print(flush=True)  # an empty line ends no session
            continue
        ids = torch.tensor([begun(tokenizer, prompt)], dtype=torch.long)
        longest = longest_text(model)
        count = new_tokens(ids.shape[1], options.max_new_tokens, longest)
        print(prompt, end="", flush=True)
        tokens = model.stream(
            ids,
            max_new_tokens=count,
            sampling=sampling,
            generator=generator,
            stop_ids=tokenizer.stop_ids(),
        )
        show(tokenizer, tokens)


def begun(tokenizer: Any, prompt: str) -> list[int]:
    """A prompt as the model was trained to read the begin of a text, and without an end."""
    ids = tokenizer.encode(prompt, special_tokens=True)
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_id and len(ids) > 1 else ids


def new_tokens(prompt: int, wanted: int | None, context: float) -> int:
    """How many tokens follow a prompt of so many; by default at most 200.

    Raises:
        UserError: the prompt is empty, or the model's context too short for both.
    """
    if prompt == 0:
        raise UserError("the prompt is empty: it needs one token at least.")
    count = int(max(1, min(200, context - prompt))) if wanted is None else wanted
    if prompt + count > context:
        raise UserError(
            f"a prompt of {prompt} tokens and {count} new ones do not fit the model's context of "
            f"{context} tokens."
        )
    return count
