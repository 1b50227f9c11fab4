"""Views of numeric series: which steps were read, under the curves."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from family.core.attention import Attention
from family.heads.problem import REGRESSION
from family.inference.batches import device_of, dtype_of
from family.inputs.series import SeriesEmbedding, Steps
from family.look.curves import curves
from family.look.maps import recorded_maps, stacks_of
from family.look.shared import CLASSES, classes, first, kept, own, shares
from family.look.view import Panel, Side, View, check_count


def told(loaded: Any, series: Steps) -> View:
    """A series in patches of steps, what they read of each other, and what speaks for its classes, for its numbers, or
    for the first and the last step that is foretold."""
    model, preprocess = loaded.model, loaded.preprocess
    embedding = getattr(model, "embedding", None)
    if not isinstance(embedding, SeriesEmbedding) or not stacks_of(model):
        raise ValueError(
            f"a {type(model).__name__} has no patches of steps whose attention could be shown."
        )
    shown = preprocess(series)
    values = shown[None].to(device_of(model), dtype_of(model))
    steps, patch = len(shown), embedding.patch_size
    count = -(-steps // patch)
    heads = sum(one.heads for one in model.modules() if isinstance(one, Attention))
    check_count(heads * count**2, count)
    maps, logits = recorded_maps(model, lambda: model(values))
    foretold = {}
    if preprocess.horizon:
        rows = preprocess.by_target(logits.float().cpu())[0].tolist()
        foretold = dict(zip(preprocess.targets, rows, strict=True))
    # Without the channels that say where values were missing.
    picture = curves(preprocess.channels, shown[:, : len(preprocess.channels)].tolist(), foretold)
    cells: list[str | int] = [*range(count)]
    covers = 1.0, count * patch / (steps + preprocess.horizon)
    before = len(preprocess.array(series)) - steps  # that the model is not shown
    named = [spoken(i, patch, steps, before) for i in range(count)]
    side = Side("steps", cells, picture, (1, count), covers, named)
    panel = Panel("steps, to each other", 0, 0, first(own(maps).own), rolls=True)
    view = View(loaded.task, [], [side], kept([panel]))
    if getattr(model, "problem_type", None) == REGRESSION:
        numbers(loaded, view, values, logits)
    else:
        classes(loaded, view, lambda: model(values))
    return view


def spoken(number: int, patch: int, steps: int, before: int) -> str:
    """What a patch is called, by its steps."""
    begin, end = before + number * patch + 1, before + min(steps, (number + 1) * patch)
    return f"step {begin}" if begin == end else f"patch {number + 1} of the steps {begin} to {end}"


def after(steps: int) -> str:
    return f"{steps} step{'s' * (steps > 1)} on"


def numbers(loaded: Any, view: View, values: Tensor, logits: Tensor) -> None:
    """Add numbers to a view, and what raises each."""
    model, horizon = loaded.model, loaded.preprocess.horizon

    def raised(number: int) -> list[float]:
        return shares(model, lambda: model(values)[:, number, None], 0)

    for i, (name, said) in enumerate(loaded.preprocess.said(logits)[0].items()):
        if not horizon:
            view.answer.append(f"{name} {said:.5g}")
            places = {name: i}
        else:
            end = f" \N{HORIZONTAL ELLIPSIS} {said[-1]:.5g}" if horizon > 1 else ""
            view.answer.append(f"{name} {said[0]:.5g}{end}")
            edges = dict.fromkeys([0, horizon - 1])
            places = {f"{name}, {after(step + 1)}": i * horizon + step for step in edges}
        if i < CLASSES:
            view.relevance += [
                {"class": what, "score": None, "values": raised(number)}
                for what, number in places.items()
            ]
