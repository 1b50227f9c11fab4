"""``family chat SOURCE``: talk with a language model that was trained to answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from family import Sampling
from family.inference.texts import new_tokens, random_numbers, sampling_of, written
from family.models.member import longest_text
from tasks.commands.examples import command_parser
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import checked, given_or_read
from tasks.commands.streaming import show, tell_window
from tasks.errors import UserError, at_least, user_errors

NEW_TOKENS = 512
"""The longest answer, where neither the command nor the model's ``generation`` says."""
USUAL = Sampling(temperature=0.7, top_p=0.95)
"""Where neither the command nor the model's ``generation`` says how to draw."""


def run(arguments: list[str]) -> None:
    """Answer each line of standard input, in one conversation, as the answer grows."""
    parser = command_parser(
        "chat",
        __doc__,
        "family chat SOURCE",
        'family chat SOURCE --system "You answer in one sentence."',
    )
    parser.add_argument(
        "source", help="a model with a chat template: a run, a folder, or a name on the hub"
    )
    parser.add_argument("--system", help="what the model is told before the conversation")
    parser.add_argument("--max_new_tokens", type=int, default=None, help="of an answer, at most")
    parser.add_argument(
        "--temperature", type=float, help="0 is greedy; without, as the model says, or 0.7"
    )
    parser.add_argument("--top_p", type=float, help="without, as the model says, or 0.95")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    model_options(parser, None)
    options = parser.parse_args(arguments)
    if options.max_new_tokens is not None:
        at_least(1, of="--", max_new_tokens=options.max_new_tokens)
    given = {"temperature": options.temperature, "top_p": options.top_p}
    with user_errors():
        Sampling(**{name: value for name, value in given.items() if value is not None})
    loaded = open_model(options.source, options, "LanguageModeling")
    model: Any = loaded.model
    tokenizer = loaded.tokenizer
    sampling = sampling_of(model, USUAL, **given)
    if tokenizer.chat_template is None:
        raise UserError(
            f"{options.source} has no chat template, so it was not trained to chat: try family "
            "generate."
        )
    generator = random_numbers(model, options.seed)
    messages: list[dict[str, str]] = []
    if options.system is not None:
        messages.append({"role": "system", "content": checked(options.system)})
    said = False
    for turn in turns():
        messages.append({"role": "user", "content": turn})
        try:
            ids = tokenizer.chat_ids(messages)
        except ValueError as error:
            raise UserError(f"{options.source}: {error}") from None
        with user_errors():
            count = room(model, len(ids), options.max_new_tokens)
            answer = written(model, ids, count, sampling, generator)
        said = said or tell_window(model, options.source, len(ids) + count)
        messages.append({"role": "assistant", "content": show(answer)})


def turns() -> Iterator[str]:
    """What the user says, a line each; a person at a terminal is asked for it."""
    lines = given_or_read([])
    while True:
        if sys.stdin.isatty():
            print("> ", end="", flush=True)
        try:
            said = next(lines, None)
        except KeyboardInterrupt:
            said = None
        if said is None:
            return
        if said:
            yield said


def room(model: Any, used: int, wanted: int | None) -> int:
    """How many tokens an answer may have after a conversation of so many.

    Raises:
        UserError: the model's context is too short for both.
    """
    context, least = longest_text(model), wanted or 1
    if used + least > context:
        raise UserError(
            f"the conversation of {used} tokens and an answer of {least} do not fit the model's "
            f"context of {context} tokens: begin a new one."
        )
    return new_tokens(model, used, wanted, NEW_TOKENS)
