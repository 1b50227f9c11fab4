"""Views of pictures that are drawn: square by square, or all at once out of noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from family.inference.batches import caption_batches, device_of
from family.inference.drawing import check_sentences
from family.look.maps import recorded_maps
from family.look.shared import first, kept
from family.look.sides import seen_by, words
from family.look.view import Panel, Side, View

TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""On the way from noise to picture, of which maps are shown."""
MOST_READ = 3
"""Words that the answer names."""


class Moment(NamedTuple):
    """A place on the way from noise to picture.

    Args:
        time: 0 is noise, 1 the picture.
        x: what is there by then, ``(1, channels, height, width)``, as the model sees it.
    """

    time: Tensor
    x: Tensor


def drawn(loaded: Any, text: str, seed: int = 0) -> View:
    """A picture of a text, and what it was drawn from.

    Args:
        seed: of what is drawn.

    Raises:
        ValueError: a model that draws by no attention to words, or a text that it does not see all of.
    """
    model = loaded.model
    for name, show in (("draw_ids", drawn_by_squares), ("velocity", drawn_from_noise)):
        if hasattr(model, name):
            loaded.check(("preprocess",))
            check_sentences(model, [text])
            generator = torch.Generator(device_of(model)).manual_seed(seed)
            return show(loaded, text, generator)
    raise ValueError(no_words(model))


def no_words(model: Any) -> str:
    """What is said of a model whose pictures attend to no word."""
    return (
        f"what a {type(model).__name__} draws attends to no words, so there is nothing to look at."
    )


def drawn_by_squares(loaded: Any, text: str, generator: torch.Generator) -> View:
    """What each square was drawn from: the words, and the squares before."""
    model = loaded.model
    ids, mask = next(caption_batches(model, [text]))
    codes = model.draw_ids(ids, mask, generator=generator)
    maps, _ = recorded_maps(model, lambda: model(codes, ids, mask))
    with torch.no_grad():
        pixels = model.image_tokenizer.decode(codes).clamp(-1, 1)
    said, slots = int(mask.sum()), model.text_tokens
    layers = [
        None if m is None else of_squares(m, said, slots) for m in first(maps["transformer"].own)
    ]
    before = [*words(loaded.tokenizer, ids[0].tolist()), "[free slots]"]
    return of_square_maps(loaded, pixels, layers, before)


def of_square_maps(
    loaded: Any, pixels: Tensor, layers: Sequence[Tensor | None], before: list[str]
) -> View:
    """A view of squares that were drawn one after the other.

    Args:
        pixels: what came of them, ``(1, 3, height, width)``.
        layers: ``(heads, squares, before + squares)`` each.
        before: the names of what stands before the squares.
    """
    grid = loaded.model.image_tokenizer.grid
    cells: list[str | int] = [*range(grid[0] * grid[1])]
    picture = seen_by(loaded.model, pixels)
    read = Side("words, and squares before", [*before, *cells], picture, grid)
    panels = kept([Panel("drawn \N{LEFTWARDS ARROW} what was there", 0, 1, layers)])
    answer = [f"drawn in {len(cells)} squares"]
    return View(loaded.task, answer, [Side("drawn", cells, picture, grid), read], panels)


def drawn_from_noise(loaded: Any, text: str, generator: torch.Generator) -> View:
    """By which patches each word was read at some times on the way from noise to picture, the last first, and what
    was drawn by then. A row is a word, and says how all that was read of it is shared out among the patches."""
    model = loaded.model
    ids, mask = next(caption_batches(model, [text]))
    moments = passed(model, ids, mask, generator)
    named, told = words(loaded.tokenizer, ids[0].tolist()), model.read(ids, mask)
    sides, panels = [Side("words", [*named])], list[Panel]()
    shares = torch.zeros(len(named))
    for wanted in reversed(TIMES):
        at = min(moments, key=lambda one: abs(float(one.time) - wanted))
        maps, _ = recorded_maps(model, partial(model.velocity, at.x, at.time, told))
        found = maps["transformer"]
        layers = first(found.across)
        if model.joint:
            layers = [of_words(m, len(named)) for m in first(found.own)]
        for m in layers:
            shares += 0 if m is None else m.float().mean((0, 1)).cpu()
        grid = model.patches.grid(*at.x.shape[-2:])
        cells: list[str | int] = [*range(grid[0] * grid[1])]
        picture = seen_by(model, model.pixels(at.x.float()))
        way = f"{100 * wanted:.0f} % drawn"
        sides.append(Side(way, cells, picture, grid))
        read = [by_patches(m) for m in layers]
        panels.append(Panel(way, 0, len(sides) - 1, read, turned=True))
    panels = kept(panels)
    if not panels:
        raise ValueError(no_words(model))
    shares = shares / shares.sum().clamp(min=1e-12)
    best = shares.topk(min(MOST_READ, len(named)))
    most = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    answer = ["most read: " + ", ".join(f"{named[i]} {share:.2f}" for i, share in most)]
    return View(loaded.task, answer, sides, panels)


def passed(
    model: Any, ids: Tensor, mask: Tensor | None, generator: torch.Generator
) -> list[Moment]:
    """All places at which a velocity was asked for while a picture was drawn, as ``family draw`` does."""
    times, seen = list[Tensor](), list[Tensor]()
    hooks = [
        model.time.register_forward_pre_hook(lambda _, given: times.append(given[0])),
        model.patches.register_forward_pre_hook(lambda _, given: seen.append(given[0])),
    ]
    try:
        model.draw(ids, mask, generator=generator)
    finally:
        for hook in hooks:
            hook.remove()
    return [Moment(time, x) for time, x in zip(times, seen, strict=True)]


def of_words(one: Tensor | None, count: int) -> Tensor | None:
    """``(heads, patches, words)`` of a map of words and patches in one stack."""
    return None if one is None else one[:, count:, :count]


def by_patches(one: Tensor | None) -> Tensor | None:
    """``(heads, words, patches)`` of ``(heads, patches, words)``, each row as shares."""
    if one is None:
        return None
    one = one.transpose(1, 2)
    return one / one.sum(-1, keepdim=True).clamp(min=torch.finfo(one.dtype).tiny)


def of_squares(one: Tensor, said: int, slots: int) -> Tensor:
    """``(heads, squares, words + 1 + squares)`` of a map of all slots and squares: what each square was drawn from;
    the slots that no word fills together, and the last square, which nothing is drawn from."""
    rows = one[:, slots - 1 :]  # what stands before a square decides on it
    free = rows[..., said:slots].sum(-1, keepdim=True)
    return torch.cat([rows[..., :said], free, F.pad(rows[..., slots:], (0, 1))], dim=-1)
