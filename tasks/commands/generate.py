"""``family generate CKPT --prompt "..."``: continue a text, token by token; or, of an encoder-decoder,
what it makes of the text: ``--prompt "summarize: ..."``."""

from __future__ import annotations

import argparse
from typing import Any

from family import Sampling
from family.generation.defaults import defaults_of
from family.generation.speculative import PROMPT
from family.inference.text_to_text import answers
from family.inference.texts import continuations, planned, random_numbers, sampling_of
from tasks.commands.examples import command_parser
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import checked, given_or_read
from tasks.commands.streaming import show, tell_window
from tasks.errors import UserError, at_least, user_errors

USUAL = Sampling(temperature=0.8)
"""Where neither the command nor the model's ``generation`` says how to draw."""
ANSWERING = ("TextToText", "Translation")
"""Tasks whose models make another text of a text: what is given is no part of it."""
DRAWING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def run(arguments: list[str]) -> None:
    """Print each continuation as it grows, or each answer; without a prompt, read one a line."""
    options = parser().parse_args(arguments)
    drawing = given(options, *DRAWING)
    check(options, drawing)
    loaded = open_model(options.checkpoint, options, "LanguageModeling", *ANSWERING)
    model = loaded.model
    if options.compile:
        compile_decoding(model)
    generator = random_numbers(model, options.seed)
    answering = loaded.task in ANSWERING
    usual = Sampling() if answering and not drawing.keys() - {"repetition_penalty"} else USUAL
    with user_errors():
        beams, sampling = chosen(model, options.beams, drawing, usual)
    rules = given(options, "min_new_tokens", "no_repeat_ngram")
    rules |= {"stop": [checked(stop) for stop in options.stop], "num": options.num}
    rules |= {"beams": beams, "parse_special": options.parse_special}
    rules |= drafted(options)
    said = False
    for prompt in given_or_read([] if options.prompt is None else [options.prompt]):
        if not prompt and options.prompt is None:
            print(flush=True)  # an empty line ends no session
            continue
        if answering:
            most = given(options, "max_new_tokens")
            with user_errors():
                found = answers(model, prompt, sampling, generator=generator, **most, **rules)
            print(*found, sep="\n", flush=True)
            continue
        with user_errors():
            ids, count = planned(model, prompt, options.max_new_tokens, options.parse_special)
            texts = continuations(model, prompt, count, sampling, generator, **rules)
            said = said or tell_window(model, options.checkpoint, len(ids) + count)
            for text in texts:
                print(prompt, end="", flush=True)
                show(text)


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = command_parser(
        "generate",
        __doc__,
        'family generate RUN --prompt "there is"',
        'family generate SOURCE --prompt "there is" --temperature 0.7 --max_new_tokens 50',
    )
    made.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    made.add_argument("--prompt", help="none: lines from standard input")
    made.add_argument("--max_new_tokens", type=int, help="without, as the model says, or 200")
    made.add_argument("--min_new_tokens", type=int, help="before the text may end")
    made.add_argument("--num", type=int, default=1, help="texts of each prompt, one after another")
    made.add_argument(
        "--beams",
        type=int,
        help="search, and draw nothing: the best --num of so many; without, as the model says",
    )
    made.add_argument(
        "--stop", action="append", default=[], help="end before this string; may be repeated"
    )
    made.add_argument(
        "--temperature",
        type=float,
        help="0 is greedy; without, as the model says, or 0.8 (of an encoder-decoder 0)",
    )
    made.add_argument("--top_k", type=int, help="only the likeliest so many tokens are drawn from")
    made.add_argument(
        "--top_p",
        type=float,
        help="only the likeliest tokens that come to this probability together",
    )
    made.add_argument(
        "--min_p", type=float, help="only tokens at least this share as likely as the likeliest"
    )
    made.add_argument(
        "--repetition_penalty", type=float, help="above 1 makes what was said less likely again"
    )
    made.add_argument("--no_repeat_ngram", type=int, help="no so many tokens in a row come twice")
    made.add_argument(
        "--draft",
        help="a small model of the same vocabulary that guesses ahead, or 'prompt', which copies what stood "
        "before: the same text in fewer steps",
    )
    made.add_argument("--draft_tokens", type=int, default=4, help="guesses a step, at most")
    made.add_argument("--seed", type=int, default=0, help="of the random numbers")
    made.add_argument(
        "--parse_special",
        action="store_true",
        help="what spells a special token in a prompt, as <|im_end|>, is one; otherwise it is text",
    )
    made.add_argument(
        "--compile",
        action="store_true",
        help="the step of one token: the first text begins some ten seconds later or more, and each token takes a half "
        "to a third of the time, the less with --precision int8",
    )
    model_options(made, None)
    return made


def compile_decoding(model: Any) -> None:
    """Its own, or refuse (UserError) a model that has none."""
    if not hasattr(model, "compile_decoding"):
        raise UserError(
            f"--compile is for language models, and not for a {type(model).__name__}: leave it out."
        )
    model.compile_decoding()


def drafted(options: argparse.Namespace) -> dict[str, Any]:
    """Who guesses ahead, as ``generate`` takes it; nothing without."""
    if options.draft is None:
        return {}
    draft = options.draft
    if draft != PROMPT:
        draft = open_model(draft, options, "LanguageModeling", *ANSWERING).model
    return {"draft": draft, "draft_tokens": options.draft_tokens}


def given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Those of the options that have a value."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def check(options: argparse.Namespace, drawing: dict[str, Any]) -> None:
    """Refuse values that make no sense, before a model is read.

    Raises:
        UserError: see above.
    """
    at_least(1, of="--", num=options.num, draft_tokens=options.draft_tokens)
    at_least(1, of="--", **given(options, "beams", "max_new_tokens"))
    at_least(0, of="--", **given(options, "min_new_tokens", "no_repeat_ngram"))
    with user_errors():
        Sampling(**drawing)


def chosen(
    model: Any, beams: int | None, drawing: dict[str, Any], usual: Sampling
) -> tuple[int, Sampling]:
    """How many beams, and how to draw: by the command, the model's ``generation``, or else as usual.

    Args:
        drawing: fields of a sampling that the command gives; those that do not go with beams are
            refused later on.
        usual: where nobody says how to draw.

    Raises:
        ValueError: values that make no sense.
    """
    own = defaults_of(model)
    if beams is None:
        greedy = own.sampling.temperature == 0 and not drawing.keys() - {"repetition_penalty"}
        beams = own.beams if greedy else 1
    if beams > 1:
        return beams, Sampling(**{"repetition_penalty": own.sampling.repetition_penalty, **drawing})
    return beams, sampling_of(model, usual, **drawing)
