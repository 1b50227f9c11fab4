"""Clips to classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from family.inference.batches import PICTURES, Picture, chunks, device_of, dtype_of
from family.inference.classes import described
from family.inputs.clips import as_clip
from family.inputs.pictures import WHITE

Clip = str | Path | Sequence[Picture]


def classify_clips(
    model: Any, clips: Sequence[Clip], batch_size: int = PICTURES, frames: int | None = None
) -> list[dict[str, Any]]:
    """Of each clip the likeliest class and how likely each is: ``label``, ``score`` and
    ``probabilities``, a number by label.

    Args:
        clips: folders of frames, video files, or lists of frames.
        frames: of each, evenly over its length; else as many as the model takes.
    """
    return described(model, clip_probabilities(model, clips, batch_size, frames))


@torch.no_grad()
def clip_probabilities(
    model: Any, clips: Sequence[Clip], batch_size: int = PICTURES, frames: int | None = None
) -> Tensor:
    """``(clips, classes)``.

    Raises:
        ValueError: a clip that cannot be read or is too short.
    """
    batches = (clip_pixels(model, some, frames) for some in chunks(clips, batch_size))
    rows = [model(pixels).float() for pixels in batches]
    return torch.cat(rows).softmax(-1).cpu() if rows else torch.empty(0, 0)


def clip_pixels(model: Any, clips: Sequence[Clip], frames: int | None = None) -> Tensor:
    """Clips as a model takes them, ``(clips, frames, 3, height, width)``.

    Raises:
        ValueError: see :func:`clip_probabilities`.
    """
    count = model.frames if frames is None else frames
    background = getattr(model.preprocess, "background", WHITE)
    read = [as_clip(clip, count, background) for clip in clips]
    pixels = torch.stack([torch.stack(list(map(model.preprocess, clip))) for clip in read])
    return pixels.to(device_of(model), dtype_of(model))
