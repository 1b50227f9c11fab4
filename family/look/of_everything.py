"""Views of one model for everything: what each kind of its answers was read from."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from family.generation.sampling import Sampling
from family.inference.batches import Picture, device_of
from family.inference.unified import BINS, given_row, make, placed_objects
from family.look.lens import logit_lens
from family.look.maps import recorded_maps
from family.look.of_drawings import of_square_maps
from family.look.shared import first, own, spoken
from family.look.sides import pixels_of, said, seen_by, words
from family.look.view import Panel, Side, View


def answered(loaded: Any, text: str, picture: Picture, task: str = "answer") -> View:
    """Words about a picture, which the model reads in codes.

    Args:
        text: the question, or nothing.
        task: the word for what is to be done.
    """
    pixels = pixels_of(loaded.model, picture)
    (made,) = make(loaded.model, task, [text], pixels)
    return written(loaded, made, given_row(loaded.model, task, text, True), pixels)


def described(loaded: Any, picture: Picture, task: str = "caption") -> View:
    """Words about a picture that is given alone."""
    return answered(loaded, "", picture, task)


def translated(loaded: Any, text: str) -> View:
    """Words of words."""
    (made,) = make(loaded.model, "translate", [text])
    return written(loaded, made, given_row(loaded.model, "translate", text, False))


def detected(loaded: Any, picture: Picture) -> View:
    """Boxes, and what the words of each, four places and a class, read of the picture; where no box was written,
    those words that were."""
    model, pixels = loaded.model, pixels_of(loaded.model, picture)
    (made,) = make(model, "detect", [""], pixels)
    view = written(loaded, made, given_row(model, "detect", "", True), pixels)
    tokens = [model.tokenizer.inner.id_to_token(i) for i in made]
    found = list(placed_objects(tokens, loaded.assets.get("bins", BINS)))
    if not found:
        return view
    rows = torch.tensor([[*range(at, at + 5)] for at, _ in found])
    across, whole = view.panels
    maps = [None if m is None else m[:, rows].mean(2) for m in across.maps]
    named = [one["label"] for _, one in found]
    panel = Panel(f"boxes \N{LEFTWARDS ARROW} {view.sides[0].name}", 0, 1, maps)
    view.sides, view.answer = [Side("boxes", [*named]), view.sides[0]], named
    view.panels = [panel, Panel(whole.name, 1, 1, whole.maps, rolls=True)]
    view.boxes = [
        {**one, "box": [round(x, 4) for x in one["box"]], "row": i}
        for i, (_, one) in enumerate(found)
    ]
    assert view.lens is not None
    view.lens["side"] = 1
    return view


def drawn(loaded: Any, text: str, seed: int = 0) -> View:
    """A picture of a text, and what each of its squares was drawn from: the words, and the squares before.

    Args:
        seed: of what is drawn.
    """
    model, device = loaded.model, device_of(loaded.model)
    generator = torch.Generator(device).manual_seed(seed)
    codes = torch.tensor(make(model, "draw", [text], None, Sampling(1.0), generator), device=device)
    ids = given_row(model, "draw", text, False)
    whole = torch.cat([torch.tensor([ids], device=device), codes[:, :-1]], dim=1)
    maps, _ = recorded_maps(model, lambda: model(whole))
    # The last square is there as one that nothing was drawn from.
    layers = [
        None if m is None else F.pad(m[:, len(ids) - 1 :], (0, 1)) for m in first(own(maps).own)
    ]
    return of_square_maps(loaded, model.drawn(codes), layers, words(model.tokenizer, ids))


def written(loaded: Any, made: list[int], ids: list[int], pixels: Tensor | None = None) -> View:
    """A view of what was written.

    Args:
        made: as ids, without the end.
        ids: what the row begins with.
        pixels: ``(1, 3, height, width)``, whose places are in it.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    ids, answer = [*ids, *made], [*made, tokenizer.eos_id]
    whole = torch.tensor([ids], device=device_of(model))
    side = Side("words", [*words(tokenizer, ids)])
    if pixels is not None:
        whole = model.with_codes(whole, model.codes(pixels))
        cells = iter(range(model.slots))
        tokens = [next(cells) if i == model.picture_id else said(tokenizer, i) for i in ids]
        grid = model.image_tokenizer.grid
        side = Side("words and picture", tokens, seen_by(model, pixels), grid)
    maps, _ = recorded_maps(model, lambda: model(whole))
    lens = logit_lens(model, whole)[:, 0, :, : model.words]
    return spoken(loaded, own(maps).own, side, answer, lens)
