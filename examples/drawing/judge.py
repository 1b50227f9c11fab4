"""How much of a caption is in the picture that was drawn of it: by a detector that finds things, and a classifier that
says what they are, neither of which ever saw a drawn picture; and, as "cells", by comparing each cell of a picture with
all that could be there.

    python examples/drawing/judge.py OUT.json --models dalle=RUN dit=RUN --detector RUN --things RUN \
        [--guidance 1 2 4] [--temperature 1 0.4] [--rank CLIP --num 8] [--held_out "purple star"]

DETECTOR is a run of detection/shapes, THINGS one of crops.py. The captions are those of the test split; with
``--held_out`` those that speak of such a thing. "true" is the same of the true pictures: what the judge can see.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from crops import cut
from PIL import Image

import family
from family.generation.sampling import Sampling
from tasks.data import shapes
from tasks.data.shape_claims import claims, verdict
from tasks.data.shape_pictures import seen
from tasks.data.text_to_image import TextToImageData
from tasks.training.pictures import BAD, GOOD, sheet

SHOWN = 24
THRESHOLD = 0.35
"""Of what the detector finds: at 0.5 it misses some small things of true pictures."""
FIELDS = ("shapes", "colours", "things", "relation", "background", "all", "cells")


class Judge:
    """Sees what is in pictures."""

    def __init__(self, detector: str, things: str) -> None:
        self.detector, self.things = family.load(detector), family.load(things)

    def see(self, pictures: list[Image.Image]) -> list[tuple[list[shapes.ShapeObject], str]]:
        """The things of each picture, and its background."""
        found = self.detector.predict(pictures, threshold=THRESHOLD)
        boxes = [(i, one["box"]) for i, some in enumerate(found) for one in some]
        crops = [cut(pictures[i], box) for i, box in boxes]
        names = self.things.predict(crops) if crops else []
        things: list[list[shapes.ShapeObject]] = [[] for _ in pictures]
        for (i, box), name in zip(boxes, names, strict=True):
            things[i].append(thing_of(box, name["label"], pictures[i].width))
        grounds = [background_of(picture) for picture in pictures]
        return list(zip(things, grounds, strict=True))


def thing_of(box: Sequence[float], name: str, side: int) -> shapes.ShapeObject:
    """An object by its name, "red star", and its box: the cell of its middle, and the size that is nearer."""
    x0, y0, x1, y1 = box
    colour, _, shape = name.partition(" ")
    cell = side / 3
    row, column = (min(2, max(0, int((a + b) / 2 / cell))) for a, b in ((y0, y1), (x0, x1)))
    corners = torch.tensor(shapes.outline(shape, 0, 0, 1))
    whole = (corners.amax(0) - corners.amin(0)).sum()  # of a shape of radius 1
    radius = float((x1 - x0 + y1 - y0) / whole) / (cell / 2)
    size = min(shapes.SIZES, key=lambda name: abs(shapes.SIZES[name] - radius))
    return shapes.ShapeObject(shape, colour, size, row, column)


def background_of(picture: Image.Image) -> str:
    """The background that most pixels are nearest to."""
    pixels = torch.tensor(list(picture.convert("RGB").getdata()), dtype=torch.float)
    known = torch.tensor(list(shapes.BACKGROUNDS.values()), dtype=torch.float)
    votes = torch.cdist(pixels, known)
    near = votes.amin(1) < 40
    counts = votes.argmin(1)[near].bincount(minlength=len(known))
    return list(shapes.BACKGROUNDS)[int(counts.argmax())]


def judged(judge: Judge, captions: list[str], pictures: list[Image.Image]) -> dict[str, Any]:
    """Shares of the captions that are fulfilled, in each respect that they speak of."""
    rows = []
    for text, picture, (objects, ground) in zip(
        captions, pictures, judge.see(pictures), strict=True
    ):
        said, cells = claims(text), seen(picture)
        assert said is not None, text
        found = verdict(said, objects, ground)
        compared = verdict(said, cells.objects, cells.background).all and not cells.odd
        rows.append({**found._asdict(), "all": found.all, "cells": compared})
    shares = {}
    for name in FIELDS:
        known = [bool(row[name]) for row in rows if row[name] is not None]
        if known:
            mean = sum(known) / len(known)
            half = 1.96 * math.sqrt(mean * (1 - mean) / len(known))
            shares[name] = {"share": round(mean, 4), "interval": round(half, 4), "of": len(known)}
    return {"shares": shares, "right": [bool(row["all"]) for row in rows]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", metavar="NAME=RUN", required=True)
    parser.add_argument("--detector", required=True)
    parser.add_argument("--things", required=True)
    parser.add_argument("--guidance", nargs="*", type=float, default=[1.0])
    parser.add_argument(
        "--temperature", nargs="*", type=float, default=[1.0], help="of what draws square by square"
    )
    parser.add_argument("--rank", help="a CLIP of ours, that chooses the best of --num")
    parser.add_argument("--num", type=int, default=8)
    parser.add_argument("--held_out", nargs="*", default=[])
    parser.add_argument("--most", type=int, default=300, help="captions")
    options = parser.parse_args()
    data = TextToImageData(held_out=tuple(options.held_out), examples=20 * options.most)
    pairs, judge = data.pairs("test"), Judge(options.detector, options.things)
    chosen = range(options.most)
    if options.held_out:  # the caption itself speaks of such a thing
        chosen = [i for i, t in enumerate(pairs.texts) if any(h in t for h in options.held_out)]
        chosen = chosen[: options.most]
    captions = [pairs.texts[i] for i in chosen]
    true = [pairs.image(i) for i in chosen]
    found: dict[str, Any] = {"true": judged(judge, captions, true)["shares"]}
    print("true", found["true"], flush=True)
    clip = family.load(options.rank) if options.rank else None
    for name, run in (one.split("=", 1) for one in options.models):
        model = family.load(run)
        heats = options.temperature if hasattr(model.model, "draw_ids") else [1.0]
        for guidance, heat in product(options.guidance, heats):
            for best in (False, True) if clip is not None else (False,):
                key = f"{name}, guidance {guidance:g}"
                key += f", temperature {heat:g}" * (len(heats) > 1)
                key += f", best of {options.num}" * best
                begun = time.perf_counter()
                asked: dict[str, Any] = {"guidance": None if guidance == 1 else guidance}
                if hasattr(model.model, "draw_ids"):
                    asked["sampling"] = Sampling(temperature=heat)
                pictures = drawn(model, captions, asked, clip if best else None, options.num)
                made = judged(judge, captions, pictures)
                seconds = round((time.perf_counter() - begun) / len(captions), 3)
                found[key] = {**made["shares"], "seconds_a_caption": seconds}
                print(key, made["shares"]["all"], made["shares"]["cells"], flush=True)
                page = sheet(
                    pictures[:SHOWN],
                    captions[:SHOWN],
                    [GOOD if right else BAD for right in made["right"][:SHOWN]],
                    columns=6,
                )
                file = options.out.with_suffix("")
                page.save(f"{file}-{key.replace(', ', '-').replace(' ', '')}.png")
    result = {"captions": len(captions), "held_out": options.held_out, "models": found}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def drawn(
    model: Any, captions: list[str], asked: dict[str, Any], clip: Any, num: int
) -> list[Image.Image]:
    """A picture of each caption; with a CLIP the nearest of several."""
    if clip is None:
        return model.predict(captions, batch_size=64, **asked)
    found = []
    made = model.predict(captions, num=num, batch_size=64, **asked)
    for caption, some in zip(captions, made, strict=True):
        scores = clip.predict(some, [caption])[:, 0]
        found.append(some[int(scores.argmax())])
    return found


if __name__ == "__main__":
    main()
