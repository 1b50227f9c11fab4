"""``family generate CKPT --prompt "..."``: continue a text, token by token."""

from __future__ import annotations

import argparse
import sys

from family import Sampling
from family.generation.window import read_to
from family.inference.texts import continuations, planned, random_numbers, sampling_of
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import checked, given_or_read
from tasks.commands.streaming import show
from tasks.errors import at_least, user_errors

USUAL = Sampling(temperature=0.8)
"""Where neither the command nor the model's ``generation`` says how to draw."""
NAMES = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def run(arguments: list[str]) -> None:
    """Print each continuation as it grows; without a prompt, read one a line."""
    parser = argparse.ArgumentParser("family generate", description=__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    parser.add_argument("--prompt", help="none: lines from standard input")
    parser.add_argument("--max_new_tokens", type=int, default=None)
    parser.add_argument("--min_new_tokens", type=int, default=None, help="before the text may end")
    parser.add_argument(
        "--num", type=int, default=1, help="texts of each prompt, one after another"
    )
    parser.add_argument(
        "--beams", type=int, default=1, help="search, and draw nothing: the best --num of so many"
    )
    parser.add_argument(
        "--stop", action="append", default=[], help="end before this string; may be repeated"
    )
    parser.add_argument(
        "--temperature", type=float, help="0 is greedy; without, as the model says, or 0.8"
    )
    parser.add_argument("--top_k", type=int)
    parser.add_argument("--top_p", type=float)
    parser.add_argument("--min_p", type=float)
    parser.add_argument("--repetition_penalty", type=float)
    parser.add_argument(
        "--no_repeat_ngram", type=int, default=None, help="no so many tokens in a row come twice"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--parse_special",
        action="store_true",
        help="what spells a special token in a prompt, as <|im_end|>, is one; otherwise it is text",
    )
    model_options(parser, None)
    options = parser.parse_args(arguments)
    at_least(1, of="--", num=options.num, beams=options.beams)
    for name, least in (("max_new_tokens", 1), ("min_new_tokens", 0), ("no_repeat_ngram", 0)):
        if getattr(options, name) is not None:
            at_least(least, of="--", **{name: getattr(options, name)})
    given = {name: getattr(options, name) for name in NAMES}
    searched = options.beams > 1
    with user_errors():
        Sampling(**{name: value for name, value in given.items() if value is not None})
    loaded = open_model(options.checkpoint, options, "LanguageModeling")
    generator = random_numbers(loaded.model, options.seed)
    with user_errors():
        sampling = sampling_of(loaded.model, USUAL, **given)
        if searched:  # what is given all the same is refused where it does not go with beams
            found = {name: value for name, value in given.items() if value is not None}
            sampling = Sampling(**{"repetition_penalty": sampling.repetition_penalty, **found})
    rules = {name: getattr(options, name) for name in ("min_new_tokens", "no_repeat_ngram")}
    rules = {name: value for name, value in rules.items() if value is not None}
    said = False
    for prompt in given_or_read([] if options.prompt is None else [options.prompt]):
        if not prompt and options.prompt is None:
            print(flush=True)  # an empty line ends no session
            continue
        with user_errors():
            ids, count = planned(
                loaded.model, prompt, options.max_new_tokens, options.parse_special
            )
            window = read_to(loaded.model, len(ids) + count)
            texts = continuations(
                loaded.model,
                prompt,
                options.max_new_tokens,
                sampling,
                generator,
                options.num,
                beams=options.beams,
                stop=[checked(stop) for stop in options.stop],
                parse_special=options.parse_special,
                **rules,
            )
            if window is not None and not said:
                said = True
                print(
                    f"{options.checkpoint} was trained on texts of {window} tokens: of one that grows "
                    f"longer it reads the last {window}.",
                    file=sys.stderr,
                )
            for text in texts:
                print(prompt, end="", flush=True)
                show(text)
