"""Views of texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from family.inference.batches import device_of, text_batches
from family.inference.masked import gapped
from family.inputs.conversation import answered_ids
from family.inputs.encode import UNLIMITED, encode_captions, encode_prompt
from family.look.lens import logit_lens, writes
from family.look.maps import recorded_maps
from family.look.shared import classes, first, kept, own, shares, wrote
from family.look.sides import said, words
from family.look.view import Panel, Side, View, lens_of
from family.look.written import source_ids, written_ids
from family.models.member import longest_text

GUESSES = 5
"""Words for a gap in a line."""


def translated(loaded: Any, text: str, **options: Any) -> View:
    """Source, target, and their alignment; a row is the word that is being written."""
    model, tokenizer = loaded.model, loaded.tokenizer
    ids, target = source_ids(model, text, **options)
    start, made = written_ids(model, ids, target, options.get("beams"), text_to_text(loaded))
    return wrote(loaded, ids, start, made, Side("source", [*words(tokenizer, ids[0].tolist())]))


def text_to_text(loaded: Any) -> bool:
    return loaded.task == "TextToText"


def continued(loaded: Any, text: str) -> View:
    """A text as a language model reads it, and what it would go on with after each token."""
    model, tokenizer = loaded.model, loaded.tokenizer
    ids = encode_prompt(tokenizer, text)
    if len(ids) > longest_text(model):
        raise ValueError(
            f"a text of {len(ids)} tokens does not fit the model's {longest_text(model)}."
        )
    view = of_tokens(loaded, torch.tensor([ids], device=device_of(model)))
    best = [words[0] for words in view.lens["words"][-1]] if view.lens else []
    view.answer = [f"next: {best[-1]}"] if best else []
    return view


def filled(loaded: Any, text: str) -> View:
    """A text with gaps, or without any."""
    model, tokenizer = loaded.model, loaded.tokenizer
    try:
        ids = gapped(model, text)
        answer = [
            ", ".join(f"{one['token'].strip()} {one['score']:.2f}" for one in gap[:GUESSES])
            for gap in loaded.predict([text])[0]
        ]
    except ValueError as error:
        if "has no gap" not in str(error):
            raise
        (ids,), answer = encode_captions(tokenizer, [text], UNLIMITED)[0].tolist(), []
    view = of_tokens(loaded, torch.tensor([ids], device=device_of(model)))
    view.answer = answer
    return view


def of_tokens(loaded: Any, *inputs: Tensor) -> View:
    """One stack over the tokens of a text."""
    model = loaded.model
    maps, _ = recorded_maps(model, lambda: model(*inputs))
    side = Side("text", [*words(loaded.tokenizer, inputs[0][0].tolist())])
    panels = [Panel("text", 0, 0, first(own(maps).own), rolls=True)]
    view = View(loaded.task, [], [side], kept(panels))
    if writes(model):
        lens = lens_of(logit_lens(model, *inputs)[:, 0], loaded.tokenizer, said)
        view.lens = {**lens, "side": 0, "wrote": False}
    return view


def judged(loaded: Any, text: str, pair: str | None = None) -> View:
    """A text, or a pair, that has classes as a whole."""
    loaded.check_pairs(pair is not None)
    inputs = next(text_batches(loaded.model, [text], pairs=None if pair is None else [pair]))
    view = of_tokens(loaded, *inputs)
    classes(loaded, view, lambda: loaded.model(*inputs))
    return view


def tagged(loaded: Any, text: str) -> View:
    """A text whose tokens have classes."""
    view = of_tokens(loaded, *next(text_batches(loaded.model, [text])))
    view.answer = [f"{one['word']} {one['label']}" for one in loaded.predict([text])[0]]
    return view


def rewarded(loaded: Any, text: str, pair: str | None = None) -> View:
    """A prompt and its answer, how good that is, and the words that speak for it or against it; the prompt is the
    user's turn where there is a chat template."""
    if pair is None:
        raise ValueError("an answer to the text is rewarded: give that as the pair.")
    model, tokenizer = loaded.model, loaded.tokenizer
    prompt = [{"role": "user", "content": text}] if tokenizer.chat_template else text
    _, (ids,) = answered_ids(tokenizer, prompt, [pair], None)
    if len(ids) > longest_text(model):
        raise ValueError(
            f"a text of {len(ids)} tokens does not fit the model's {longest_text(model)}."
        )
    inputs = torch.tensor([ids], device=device_of(model))
    view = of_tokens(loaded, inputs)
    with torch.no_grad():
        view.answer = [f"reward {float(model(inputs)):.3f}"]

    def reward(sign: int) -> Callable[[], Tensor]:
        return lambda: sign * model(inputs)[:, None]

    view.relevance = [
        {"class": name, "score": None, "values": shares(model, reward(sign), 0)}
        for name, sign in (("for the answer", 1), ("against it", -1))
    ]
    return view


def embedded(loaded: Any, text: str) -> View:
    """A text that becomes a vector."""
    return of_tokens(loaded, *next(text_batches(loaded.model, [text])))


def answered(loaded: Any, text: str, pair: str | None = None) -> View:
    """A question and the text that it is asked of."""
    if pair is None:
        raise ValueError("a question is asked of a text: give that as the pair.")
    view = of_tokens(loaded, *next(text_batches(loaded.model, [text], pairs=[pair])))
    view.answer = [str(loaded.predict([text], [pair])[0]["answer"])]
    return view
