"""One model's answers to whatever is asked of it: sentences, classes, boxes and pictures."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from family.generation.sampling import Sampling
from family.inference.batches import PICTURES, Picture, device_of, picture_batches
from family.inference.drawing import as_pictures
from family.inputs.encode import pad_rows

PLACE = re.compile(r"<(\d+)>")
BINS = 48
"""Places along a side, where a run does not say."""
MOST = 64
"""Words that are made, at most."""


class Allowed:
    """A logits hook: of the vocabulary some tokens alone.

    Args:
        tokens: ``(vocab,)`` bool.
    """

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens

    def __call__(self, logits: Tensor, tokens: Tensor) -> Tensor:
        return logits.masked_fill(~self.tokens.to(logits.device), -math.inf)


@torch.no_grad()
def make(
    model: Any,
    task: str,
    texts: Sequence[str],
    pixel_values: Tensor | None = None,
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """What a model makes of rows of one task, as ids without the end.

    Args:
        texts: what is given in words, maybe empty.
        pixel_values: ``(texts, 3, height, width)``, where pictures are given.
        sampling: greedy without.

    Raises:
        ValueError: a task that the tokenizer has no word for, or a row that is too long.
    """
    tokenizer, device = model.tokenizer, device_of(model)
    rows = [given_row(model, task, text, pixel_values is not None) for text in texts]
    draws = task == "draw"
    allowed = torch.arange(model.vocab_size) >= model.words
    allowed = allowed if draws else ~allowed
    # Those that have room for as many words together: none is cut for a longer neighbour.
    alike: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        room = int(model.config.max_tokens) - len(row)
        if room < (model.slots if draws else 1):
            raise ValueError(
                f"{len(row)} tokens are given, and {model.slots if draws else 1} are to be made: more "
                f"than the model's max_tokens={model.config.max_tokens}."
            )
        alike.setdefault(model.slots if draws else min(room, MOST), []).append(i)
    ends = {tokenizer.eos_id, tokenizer.pad_id}
    found: list[list[int]] = [[] for _ in rows]
    for most, places in alike.items():
        ids = pad_rows([rows[i] for i in places], -1).to(device)
        mask, ids = ids >= 0, ids.clamp(min=0)
        if pixel_values is not None:
            ids = model.with_codes(ids, model.codes(pixel_values[places]))
        new = model.generate(
            ids,
            mask,
            max_new_tokens=most,
            beams=1,
            sampling=sampling,
            generator=generator,
            stop_ids=() if draws else (tokenizer.eos_id,),
            pad_id=tokenizer.pad_id,
            hook=Allowed(allowed),
        )
        for i, row in zip(places, new.tolist(), strict=True):
            found[i] = row if draws else [token for token in row if token not in ends]
    return found


def given_row(model: Any, task: str, text: str, picture: bool) -> list[int]:
    """What a row of a task begins with, as ids, up to what is to be made.

    Args:
        picture: leave the places of one.

    Raises:
        ValueError: a task that the tokenizer has no word for.
    """
    tokenizer = model.tokenizer
    named = tokenizer.inner.token_to_id
    begin, sep = named(f"<{task}>"), named("<sep>")
    if begin is None or sep is None:
        raise ValueError(f"the model knows no task {task!r}: its tokenizer has no <{task}>.")
    places = [model.picture_id] * model.slots if picture else []
    return [tokenizer.bos_id, begin, *places, *tokenizer.encode(text), sep]


def boxes_of(model: Any, ids: Sequence[int], bins: int) -> list[dict[str, Any]]:
    """The :func:`objects_in` what was written, as ids."""
    return objects_in([model.tokenizer.inner.id_to_token(i) for i in ids], bins)


def objects_in(words: Sequence[str], bins: int) -> list[dict[str, Any]]:
    """Objects in words: ``label``, ``score`` 1 and ``box``, left, top, right, bottom in 0..1; what is no object is
    left out.

    Args:
        bins: places along a side.
    """
    return [one for _, one in placed_objects(words, bins)]


def placed_objects(words: Sequence[str], bins: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """:func:`objects_in` words, each with the place of the first of its five words."""
    at = 0
    while at + 5 <= len(words):
        sides = [PLACE.fullmatch(word) for word in words[at : at + 4]]
        label = words[at + 4]
        if not all(sides) or PLACE.fullmatch(label):
            at += 1
            continue
        y0, x0, y1, x1 = (int(side[1]) / bins for side in sides if side is not None)
        if y1 > y0 and x1 > x0:
            yield at, {"label": label, "score": 1.0, "box": [x0, y0, x1, y1]}
        at += 5


def do_task(
    model: Any,
    texts: Sequence[str] | None = None,
    pictures: Sequence[Picture] | None = None,
    task: str = "caption",
    bins: int = BINS,
    batch_size: int = PICTURES,
    seed: int = 0,
    temperature: float = 1.0,
) -> list[Any]:
    """What a model makes of texts, or of pictures with or without texts: sentences; of "detect" lists of objects,
    boxes in pixels; of "draw" pictures.

    Args:
        task: the word for it: translate, caption, answer, draw, classify, detect.
        bins: places along a side.
        seed, temperature: of what is drawn.

    Raises:
        ValueError: neither is given, not as many of both, and what :func:`make` refuses.
    """
    if texts is None and pictures is None:
        raise ValueError(f"{task} of what? give texts, or pictures, or both.")
    if texts is not None and pictures is not None and len(texts) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures but {len(texts)} texts: give as many.")
    if (task == "draw" and pictures is not None) or (task == "detect" and pictures is None):
        needs = "texts alone" if task == "draw" else "pictures"
        raise ValueError(f"task={task!r} is of {needs}.")
    count = len(texts if texts is not None else pictures or ())
    texts = list(texts) if texts is not None else [""] * count
    generator = torch.Generator(device_of(model)).manual_seed(seed)
    found: list[Any] = []
    if pictures is None:
        for first in range(0, count, batch_size):
            some = texts[first : first + batch_size]
            if task == "draw":
                ids = make(model, task, some, None, Sampling(temperature), generator)
                drawn = model.drawn(torch.tensor(ids, device=device_of(model)))
                found += as_pictures(model.preprocess, drawn)
            else:
                found += [model.tokenizer.decode(row) for row in make(model, task, some)]
        return found
    for batch, pixels in picture_batches(model, pictures, batch_size):
        some = texts[len(found) : len(found) + len(batch)]
        rows = make(model, task, some, pixels)
        if task != "detect":
            found += [model.tokenizer.decode(row) for row in rows]
            continue
        for row, picture in zip(rows, batch, strict=True):
            sides = (picture.width, picture.height) * 2
            found.append(
                [
                    {**one, "box": [x * side for x, side in zip(one["box"], sides, strict=True)]}
                    for one in boxes_of(model, row, bins)
                ]
            )
    return found
