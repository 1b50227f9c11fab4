"""Views of pictures that are drawn, square by square."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from family.inference.batches import caption_batches, device_of
from family.inference.drawing import check_sentences
from family.look.maps import recorded_maps
from family.look.shared import first, kept
from family.look.sides import seen_by, words
from family.look.view import Panel, Side, View


def drawn(loaded: Any, text: str) -> View:
    """A picture of a text, and what each of its squares was drawn from: the words, and the squares before.

    Raises:
        ValueError: a model that draws all of a picture at once, or a text that it does not see all of.
    """
    model = loaded.model
    if not hasattr(model, "draw_ids"):
        raise ValueError(
            f"a {type(model).__name__} draws all of a picture at once: look shows what draws square by square, as "
            "DALLE."
        )
    loaded.check(("preprocess",))
    check_sentences(model, [text])
    ids, mask = next(caption_batches(model, [text]))
    generator = torch.Generator(device_of(model)).manual_seed(0)
    codes = model.draw_ids(ids, mask, generator=generator)
    maps, _ = recorded_maps(model, lambda: model(codes, ids, mask))
    with torch.no_grad():
        pixels = model.image_tokenizer.decode(codes).clamp(-1, 1)
    said, slots = int(mask.sum()), model.text_tokens
    cells: list[str | int] = [*range(model.image_tokens)]
    picture, grid = seen_by(model, pixels), model.image_tokenizer.grid
    named = words(loaded.tokenizer, ids[0].tolist())
    read = Side("words, and squares before", [*named, "[free slots]", *cells], picture, grid)
    layers = [
        None if m is None else of_squares(m, said, slots) for m in first(maps["transformer"].own)
    ]
    panels = kept([Panel("drawn \N{LEFTWARDS ARROW} what was there", 0, 1, layers)])
    answer = [f"drawn in {len(cells)} squares"]
    return View(loaded.task, answer, [Side("drawn", cells, picture, grid), read], panels)


def of_squares(one: Tensor, said: int, slots: int) -> Tensor:
    """``(heads, squares, words + 1 + squares)`` of a map of all slots and squares: what each square was drawn from;
    the slots that no word fills together, and the last square, which nothing is drawn from."""
    rows = one[:, slots - 1 :]  # what stands before a square decides on it
    free = rows[..., said:slots].sum(-1, keepdim=True)
    return torch.cat([rows[..., :said], free, F.pad(rows[..., slots:], (0, 1))], dim=-1)
