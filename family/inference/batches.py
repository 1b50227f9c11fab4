"""Inputs in batches, where the model is; and the names of what it tells apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from family.inputs.encode import UNLIMITED, encode_captions
from family.inputs.pictures import WHITE, as_picture
from family.inputs.text_pairs import encode_pairs, segments
from family.models.member import longest_text

Picture = Image.Image | str | Path
Item = TypeVar("Item")
PICTURES, TEXTS = 16, 32
"""Of a batch, at most."""


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """So many at a time."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def device_of(model: Any) -> torch.device:
    """Where a model is."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def dtype_of(model: Any) -> torch.dtype:
    """What a model's numbers are kept in."""
    floats = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(floats, torch.float32)


def picture_batches(
    model: Any, pictures: Sequence[Picture], batch_size: int = PICTURES
) -> Iterator[tuple[list[Image.Image], Tensor]]:
    """Pictures in turn, with their ``pixel_values (batch, 3, height, width)`` for a model: those
    together that follow each other and are equally large when prepared, ``batch_size`` at most.

    Raises:
        ValueError: one that cannot be read.
    """
    kind = dtype_of(model)
    background = getattr(model.preprocess, "background", WHITE)  # a user's own may know none
    batch: list[Image.Image] = []
    rows: list[Tensor] = []
    for given in pictures:
        picture = as_picture(given, background)
        row = model.preprocess(picture)
        if rows and (len(rows) == batch_size or row.shape != rows[0].shape):
            yield batch, torch.stack(rows).to(device_of(model), kind)
            batch, rows = [], []
        batch.append(picture)
        rows.append(row)
    if rows:
        yield batch, torch.stack(rows).to(device_of(model), kind)


def caption_batches(
    model: Any, texts: Sequence[str], batch_size: int = TEXTS
) -> Iterator[tuple[Tensor, Tensor]]:
    """Texts in turn, as ``input_ids`` and ``mask (batch, tokens)`` for a model: the spaces around each are
    left out, as in training, and of one that is too long the end."""
    device, limit = device_of(model), most_tokens(model) or UNLIMITED
    for some in chunks([text.strip() for text in texts], batch_size):
        input_ids, mask = encode_captions(model.tokenizer, some, limit)
        yield input_ids.to(device), mask.to(device)


def text_batches(
    model: Any,
    texts: Sequence[str],
    batch_size: int = TEXTS,
    pairs: Sequence[str] | None = None,
) -> Iterator[tuple[Tensor, ...]]:
    """What a model that judges texts is called with, in turn: as :func:`caption_batches` or, of pairs, ids,
    mask and, where it tells them apart, the segment of each token.

    Args:
        pairs: the second text of each.

    Raises:
        ValueError: as many are not given.
    """
    if pairs is None:
        yield from caption_batches(model, texts, batch_size)
        return
    if len(texts) != len(pairs):
        raise ValueError(f"{len(texts)} texts but {len(pairs)} second ones: give as many.")
    device, limit = device_of(model), most_tokens(model)
    for some in chunks(zip(texts, pairs, strict=True), batch_size):
        one, other = ([text.strip() for text in side] for side in zip(*some, strict=True))
        rows = encode_pairs(model.tokenizer, one, other, limit)
        inputs = (rows.input_ids, rows.mask, *segments(model, rows.token_types))
        yield tuple(part.to(device) for part in inputs)


def most_tokens(model: Any) -> int | None:
    """The longest text that a model is given, by its tokenizer or else its config, or by its own
    ``max_tokens``; None is any."""
    reader = getattr(model, "text", model)
    config = getattr(reader, "config", None)
    room = getattr(model, "text_tokens", None) or getattr(config, "max_tokens", None)
    limit = model.tokenizer.max_tokens or room
    own = getattr(model, "max_tokens", None) or limit
    return None if limit is None else int(min(limit, own, longest_text(reader)))


def class_names(model: Any, count: int) -> list[str]:
    """The names of a model's classes; their numbers, where it has none.

    Raises:
        ValueError: names of more or fewer classes.
    """
    labels = getattr(model, "labels", None) or [str(i) for i in range(count)]
    if len(labels) != count:
        raise ValueError(f"the model tells {count} classes apart, but has {len(labels)} labels.")
    return list(labels)
