"""Views of pictures whose pixels have classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import masks_to_boxes

from family.inference.batches import Picture, class_names
from family.inference.detection import SURE, described
from family.inputs.patches import covering
from family.look.maps import StackMaps, recorded_maps
from family.look.shared import first, kept
from family.look.sides import patch_side, pixels_of, prefix_names
from family.look.view import MOST, Panel, Side, View

SEGMENTS = 12
"""That are shown, at most."""


def segmented(loaded: Any, picture: Picture) -> View:
    """The segments of a picture, and the patches that each was read from: by its query, or by the token of its
    class in the decoder; and what each patch read."""
    model, pixels = loaded.model, pixels_of(loaded.model, picture)
    encoder: Any = getattr(model, "encoder", None)
    if not hasattr(encoder, "embedding") or not hasattr(model, "patch_size"):
        raise ValueError(f"a {type(model).__name__} has no patches whose attention could be shown.")
    maps, logits = recorded_maps(model, lambda: model(pixels))
    before = prefix_names(encoder, encoder.embedding)
    height, width = pixels.shape[-2:]
    covered = covering((height, width), model.patch_size)
    side = patch_side("picture", model, encoder.embedding, pixels, before, covered)
    own, tokens = first(maps["encoder.transformer"].own), len(side.tokens)
    boxes: list[dict[str, Any]] = []
    if hasattr(model, "instances"):
        boxes, rows = objects(model, pixels)
        names = [f"{one['label']} {one['score']:.2f}" for one in boxes]
        read = [None if m is None or m.shape[-1] == tokens else m[:, rows] for m in own]
    else:
        seen = classes_seen(logits[0])
        labels = class_names(model, logits.shape[1])
        names = [f"{labels[i]} {100 * share:.0f} %" for i, share in seen]
        read = of_classes(maps, [i for i, _ in seen], tokens, len(before))
    name = "\N{LEFTWARDS ARROW} picture"
    panels = kept([Panel(f"segments {name}", 0, 1, [of_patches(m, tokens) for m in read])])
    square = [None if m is None else of_patches(m[:, -tokens:], tokens) for m in own]
    if not panels or sum(m.numel() for m in square if m is not None) < MOST // 2:
        panels.append(Panel(f"picture {name}", 1, 1, square, rolls=True))
    return View(loaded.task, names, [Side("segments", [*names]), side], panels, boxes=boxes)


def objects(model: Any, pixels: Tensor) -> tuple[list[dict[str, Any]], list[int]]:
    """What queries found, best first, the likeliest where none is sure: ``label``, ``score``, ``box`` in 0..1 and
    ``row`` of each; and their queries."""
    (found,) = model.instances(pixels, 0.0)
    count = max(1, min(SEGMENTS, int((found["scores"] >= SURE).sum())))
    height, width = pixels.shape[-2:]
    boxes = masks_to_boxes(found["masks"][:count]).cpu() + torch.tensor([0, 0, 1, 1])
    boxes = boxes / torch.tensor([width, height, width, height])
    listed = [
        {
            **described(model, kind, round(score, 3)),
            "box": [round(x, 4) for x in box],
            "row": row,
        }
        for row, (kind, score, box) in enumerate(
            zip(found["labels"].tolist(), found["scores"].tolist(), boxes.tolist(), strict=False)
        )
    ]
    return listed, found["queries"][:count].tolist()


def classes_seen(logits: Tensor) -> list[tuple[int, float]]:
    """The classes of ``(classes, height, width)`` that some pixel has, and their shares, the largest first."""
    ids, counts = logits.argmax(0).unique(return_counts=True)
    order = counts.argsort(descending=True)[:SEGMENTS].tolist()
    return [(int(ids[i]), float(counts[i]) / logits[0].numel()) for i in order]


def of_classes(
    maps: dict[str, StackMaps], classes: Sequence[int], tokens: int, prefix: int
) -> list[Tensor | None]:
    """What the tokens of some classes read in a decoder that has them behind the patches; none without such.

    Args:
        tokens, prefix: of the encoder, patches included, and those before patches, which no decoder reads.
    """
    if "decoder.transformer" not in maps:
        return []
    patches = tokens - prefix
    rows = [patches + i for i in classes]
    own = first(maps["decoder.transformer"].own)
    return [None if m is None else F.pad(m[:, rows, :patches], (prefix, 0)) for m in own]


def of_patches(one: Tensor | None, tokens: int) -> Tensor | None:
    """The last so many keys of ``(heads, queries, keys)``, as shares of what was read of them: queries read each
    other too."""
    if one is None:
        return None
    one = one[..., -tokens:]
    return one / one.sum(-1, keepdim=True).clamp(min=torch.finfo(one.dtype).tiny)
