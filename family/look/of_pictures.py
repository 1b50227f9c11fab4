"""Views of pictures, and of words about them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from family.heads.detection import postprocess, ranked
from family.inference.batches import Picture, most_tokens
from family.inference.detection import SURE, described
from family.inputs.conversation import prompt_ids
from family.inputs.encode import UNLIMITED, encode_captions
from family.inputs.image_slots import IMAGE, image_id_of, place_pictures, spread
from family.look.lens import logit_lens
from family.look.maps import recorded_maps
from family.look.shared import classes, first, kept, own, shares, spoken, wrote
from family.look.sides import patch_side, pixels_of, prefix_names, said, seen_by, words
from family.look.view import MOST, Panel, Side, View
from family.look.written import written_ids
from family.models.member import longest_text

BOXES = 12
"""That are shown, at most."""
ANSWER = 24
"""Tokens of an answer about a picture."""


def classified(loaded: Any, picture: Picture) -> View:
    """A picture in patches, and what its classes were told from."""
    model, pixels = loaded.model, pixels_of(loaded.model, picture)
    maps, _ = recorded_maps(model, lambda: model(pixels))
    side = patch_side(
        "picture", model, model.embedding, pixels, prefix_names(model, model.embedding)
    )
    view = View(
        loaded.task, [], [side], kept([Panel("picture", 0, 0, first(own(maps).own), rolls=True)])
    )
    classes(loaded, view, lambda: model(pixels))
    return view


def captioned(loaded: Any, picture: Picture) -> View:
    """A sentence about a picture, word by word."""
    model, pixels = loaded.model, pixels_of(loaded.model, picture)
    start, made = written_ids(model, pixels, None, None, True)
    front = model.source_embedding
    side = patch_side("picture", model, front, pixels, prefix_names(model, front))
    return wrote(loaded, pixels, start, made, side)


def detected(loaded: Any, picture: Picture) -> View:
    """Boxes, and the part of the picture that the query of each read."""
    model, pixels = loaded.model, pixels_of(loaded.model, picture)
    if not hasattr(model, "decoder"):
        raise ValueError(f"a {type(model).__name__} has no queries that read a picture.")
    cells: list[Tensor] = []
    hook = model.backbone.register_forward_hook(lambda _, given, made: cells.append(made[0]))
    try:
        maps, outputs = recorded_maps(model, lambda: model(pixels))
    finally:
        hook.remove()
    kind = getattr(model, "classification", "softmax")
    found = postprocess(outputs, [(1, 1)], kind)[0]
    sure = loaded.assets.get("threshold", getattr(model, "threshold", None)) or SURE
    count = min(BOXES, max(1, int((found["scores"] >= sure).sum())))
    rows = ranked(outputs["logits"], kind)[2][0, :count]
    height, width = pixels.shape[-2:]
    grid, stride = tuple(cells[0].shape[-2:]), model.backbone.stride
    boxes = [
        {
            **described(model, int(found["labels"][i]), round(float(found["scores"][i]), 3)),
            "box": [round(x, 4) for x in found["boxes"][i].tolist()],
            "row": i,
        }
        for i in range(count)
    ]
    covers = grid[0] * stride / height, grid[1] * stride / width
    cell_names: list[str | int] = [*range(grid[0] * grid[1])]
    sides = [
        Side("boxes", [f"{one['label']} {one['score']:.2f}" for one in boxes]),
        Side("picture", cell_names, seen_by(model, pixels), (grid[0], grid[1]), covers),
    ]
    across = [None if m is None else m[0][:, rows] for m in maps["decoder"].across]
    panels = [Panel("boxes \N{LEFTWARDS ARROW} picture", 0, 1, across)]
    encoder = first(maps["encoder"].own)
    if sum(m.numel() for m in encoder if m is not None) < MOST // 2:
        panels.append(Panel("picture \N{LEFTWARDS ARROW} picture", 1, 1, encoder, rolls=True))
    answer = [f"{one['label']} {one['score']:.2f}" for one in boxes]
    if found["scores"][0] < sure:
        answer = [f"nothing over {sure:g}; the likeliest is {answer[0]}"]
    return View(loaded.task, answer, sides, kept(panels), boxes=boxes)


def asked(loaded: Any, text: str, picture: Picture) -> View:
    """A question about a picture, in one stack of words and patches."""
    model, pixels = loaded.model, pixels_of(loaded.model, picture)
    ids, mask = encode_captions(loaded.tokenizer, [text], UNLIMITED)
    if ids.shape[1] > longest_text(model):
        raise ValueError(
            f"a question of {ids.shape[1]} tokens does not fit the model's {longest_text(model)}."
        )
    ids, mask = ids.to(pixels.device), mask.to(pixels.device)
    maps, _ = recorded_maps(model, lambda: model(pixels, ids, mask))
    before = [*words(loaded.tokenizer, ids[0].tolist()), *prefix_names(model, model.patches)]
    side = patch_side("words and picture", model, model.patches, pixels, before)
    view = View(
        loaded.task, [], [side], kept([Panel(side.name, 0, 0, first(own(maps).own), rolls=True)])
    )
    classes(loaded, view, lambda: model(pixels, ids, mask))
    return view


def talked(loaded: Any, text: str, picture: Picture) -> View:
    """A question about a picture, and the words of the answer, in one language model."""
    model, tokenizer, pixels = loaded.model, loaded.tokenizer, pixels_of(loaded.model, picture)
    image_id = image_id_of(tokenizer)
    turns = place_pictures([{"role": "user", "content": text}], 1)
    ids = spread(prompt_ids(tokenizer, turns, (IMAGE,)), image_id, model.slots)
    start = torch.tensor([ids], device=pixels.device)
    room = int(min(ANSWER, longest_text(model) - len(ids)))
    if room < 1:
        raise ValueError(
            f"a question of {len(ids)} tokens leaves no room in the model's {longest_text(model)}."
        )
    made = model.generate(
        pixels, start, max_new_tokens=room, stop_ids=tokenizer.stop_ids(), beams=1
    )
    whole = torch.cat([start, made], dim=1)[:, :-1]
    maps, _ = recorded_maps(model, lambda: model(pixels, whole))
    rows, columns = (n // model.shuffle for n in model.vision.grid(*pixels.shape[-2:]))
    prefix = model.slots - rows * columns
    cells, tokens = iter(range(-prefix, rows * columns)), list[str | int]()
    for i in whole[0].tolist():
        cell = next(cells, -1) if i == image_id else None
        tokens.append(said(tokenizer, i) if cell is None else "[class]" if cell < 0 else cell)
    side = Side("words and picture", tokens, seen_by(model, pixels), (rows, columns))
    lens = logit_lens(model, pixels, whole)[:, 0]
    return spoken(loaded, maps["language.transformer"].own, side, made[0].tolist(), lens)


def matched(loaded: Any, text: str, picture: Picture) -> View:
    """A picture and a text, how near they are, and what of either speaks for that."""
    model, tokenizer, pixels = loaded.model, loaded.tokenizer, pixels_of(loaded.model, picture)
    ids, mask = encode_captions(tokenizer, [text], UNLIMITED)
    longest = most_tokens(model) or UNLIMITED
    if ids.shape[1] > longest:
        raise ValueError(f"a text of {ids.shape[1]} tokens does not fit the model's {longest}.")
    ids, mask = ids.to(pixels.device), mask.to(pixels.device)

    def near() -> Tensor:
        return F.cosine_similarity(model.encode_image(pixels), model.encode_text(ids, mask))[None]

    maps, cosine = recorded_maps(model, near)
    read = words(tokenizer, ids[0].tolist())
    layers = first(maps["text.transformer"].own)
    filled = next(m.shape[-1] for m in layers if m is not None) - len(read)
    sides = [Side("text", [*read, *["[fill]"] * filled])]
    panels = [Panel("text", 0, 0, layers, rolls=True)]
    told: list[dict[str, Any]] = [
        {"class": "in the text", "score": None, "values": shares(model.text, near, 0)}
    ]
    if "image.transformer" in maps:  # a convolutional tower attends to nothing
        names = prefix_names(model.image, model.image.embedding)
        sides.insert(0, patch_side("picture", model, model.image.embedding, pixels, names))
        whole = first(maps["image.transformer"].own)
        panels = [
            Panel("picture", 0, 0, whole, rolls=True),
            Panel("text", 1, 1, layers, rolls=True),
        ]
        values = shares(model.image, near, 0)
        told = [
            {"class": "in the picture", "score": None, "values": values},
            {**told[0], "side": 1},
        ]
    answer = [f"cosine {float(cosine):.3f}"]
    return View(loaded.task, answer, sides, kept(panels), relevance=told)
