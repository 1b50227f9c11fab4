"""``family generate CKPT --prompt "..."``: continue a text, token by token."""

from __future__ import annotations

import argparse

from family import Sampling
from family.inference.texts import continuation, random_numbers
from tasks.commands.sentences import given_or_read
from tasks.commands.streaming import show
from tasks.errors import at_least, user_errors
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
    parser.add_argument(
        "--parse_special",
        action="store_true",
        help="what spells a special token in a prompt, as <|im_end|>, is one; otherwise it is text",
    )
    options = parser.parse_args(arguments)
    if options.max_new_tokens is not None:
        at_least(1, of="--", max_new_tokens=options.max_new_tokens)
    with user_errors():
        sampling = Sampling(
            options.repetition_penalty,
            options.temperature,
            options.top_k,
            options.top_p,
            options.min_p,
        )
    loaded = load_checkpoint(options.checkpoint, "LanguageModeling")
    generator = random_numbers(loaded.model, options.seed)
    for prompt in given_or_read([] if options.prompt is None else [options.prompt]):
        if not prompt and options.prompt is None:
            print(flush=True)  # an empty line ends no session
            continue
        with user_errors():
            text = continuation(
                loaded.model,
                prompt,
                options.max_new_tokens,
                sampling,
                generator,
                options.parse_special,
            )
        print(prompt, end="", flush=True)
        show(text)
