"""What views of several tasks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from family.heads.problem import answers
from family.inference.batches import class_names
from family.inference.classes import described
from family.look.lens import logit_lens
from family.look.maps import StackMaps, recorded_maps
from family.look.relevance import relevances
from family.look.sides import said, words
from family.look.view import Panel, Side, View, lens_of

CLASSES = 3
"""Of which relevance is shown, the likeliest."""


def wrote(loaded: Any, source: Tensor, start: Tensor, made: Tensor, read: Side) -> View:
    """An encoder-decoder that wrote some tokens.

    Args:
        source: what its front-end reads.
        start, made: ``(1, tokens)`` that its target begins with, and those that follow.
        read: what it read.
    """
    model, target = loaded.model, loaded.tokenizer.target
    so_far = torch.cat([start, made], dim=1)[:, :-1]
    maps, _ = recorded_maps(model, lambda: model(source, so_far))
    given = words(target, so_far[0].tolist())
    writes_now = [*given[1:], said(target, int(made[0, -1]))]
    sides = [read, Side("written", [*writes_now]), Side("read so far", [*given])]
    decoder, encoder = maps["decoder"], maps.get("encoder")
    panels = [Panel(f"written \N{LEFTWARDS ARROW} {read.name}", 1, 0, first(decoder.across))]
    if encoder is not None:
        name = f"{read.name} \N{LEFTWARDS ARROW} {read.name}"
        panels.append(Panel(name, 0, 0, first(encoder.own), rolls=True))
    panels.append(
        Panel("written \N{LEFTWARDS ARROW} read so far", 1, 2, first(decoder.own), rolls=True)
    )
    lens = lens_of(logit_lens(model, source, so_far)[:, 0], target, said)
    answer = [target.decode(made[0].tolist())]
    return View(loaded.task, answer, sides, kept(panels), lens={**lens, "side": 1, "wrote": True})


def spoken(
    loaded: Any, layers: tuple[Tensor | None, ...], read: Side, answer: list[int], lens: Tensor
) -> View:
    """A stack that read something, and behind it wrote an answer.

    Args:
        layers: its maps, over all tokens but the answer's last.
        read: those tokens.
        answer: what was written, as ids.
        lens: of :func:`~family.look.lens.logit_lens`, ``(layers, tokens, vocab)``.
    """
    maps, tokenizer = first(layers), loaded.tokenizer
    written = Side("answer", [*words(tokenizer, answer)])
    # The token at a place is what decides on the next one.
    rows = [None if m is None else m[:, -len(answer) :] for m in maps]
    panels = [
        Panel(f"answer \N{LEFTWARDS ARROW} {read.name}", 1, 0, rows),
        Panel(read.name, 0, 0, maps, rolls=True),
    ]
    said_it = [tokenizer.decode(answer).strip()]
    seen = {**lens_of(lens, tokenizer, said), "side": 0, "wrote": False}
    return View(loaded.task, said_it, [read, written], kept(panels), lens=seen)


def classes(loaded: Any, view: View, call: Callable[[], Tensor]) -> None:
    """Add the likeliest classes to a view, and what speaks for each."""
    model = loaded.model
    with torch.no_grad():
        chances = answers(model, call().float())
    if loaded.task.endswith("Regression"):
        view.answer = [f"{float(chances.flatten()[0]):.3f}"]
        view.relevance = [{"class": "the number", "score": None, "values": shares(model, call, 0)}]
        return
    names = class_names(model, chances.shape[1])
    found = described(model, chances.cpu())[0]["probabilities"]
    best = chances[0].topk(min(CLASSES, len(names))).indices.tolist()
    listed = list(found.items())
    view.answer = [f"{listed[i][0]} {listed[i][1]:.2f}" for i in best]
    view.relevance = [
        {"class": listed[i][0], "score": listed[i][1], "values": shares(model, call, i)}
        for i in best
    ]


def shares(model: Any, call: Callable[[], Tensor], target: int) -> list[float]:
    """What each token says for a class, as a share of the most."""
    values = relevances(model, call, target)[0]
    return [round(value, 4) for value in (values / values.max().clamp(min=1e-12)).tolist()]


def own(maps: dict[str, StackMaps]) -> StackMaps:
    """Those of the stack that the model reads with, its last."""
    return list(maps.values())[-1]


def first(layers: tuple[Tensor | None, ...]) -> list[Tensor | None]:
    """Of a batch of one."""
    return [None if one is None else one[0] for one in layers]


def kept(panels: list[Panel]) -> list[Panel]:
    """Those with a map."""
    return [panel for panel in panels if any(one is not None for one in panel.maps)]
