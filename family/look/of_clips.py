"""Views of what lasts: clips, and sound."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from family.inference.batches import device_of
from family.inference.clips import Clip, clip_pixels
from family.inputs.audio import read_wav
from family.look.maps import recorded_maps
from family.look.shared import classes, first, kept, own, wrote
from family.look.sides import SHOWN, seen_by
from family.look.view import Panel, Side, View
from family.look.written import written_ids

CELLS = 150
"""Parts of a sound that are told apart, at most."""
TALL = 96
"""Pixels of a spectrogram."""


def clip_classified(loaded: Any, clip: Clip) -> View:
    """A clip in tubelets, the first frame of each on one sheet, and what its classes were told from."""
    model = loaded.model
    if not hasattr(getattr(model, "embedding", None), "tubelet"):
        raise ValueError(
            f"a {type(model).__name__} has no tubelets whose attention could be shown."
        )
    pixels = clip_pixels(model, [clip], loaded.assets.get("frames"))
    maps, _ = recorded_maps(model, lambda: model(pixels))
    times, rows, columns = model.embedding.grid
    across = next(n for n in range(math.isqrt(times - 1) + 1, times + 1) if times % n == 0)
    frames = pixels[0, :: model.embedding.tubelet[0]].unflatten(0, (times // across, across))
    sheet = frames.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    # Rows of the sheet are rows of frames, and rows within them.
    cells = torch.arange(times * rows * columns).view(times // across, rows, across, columns)
    order = cells.transpose(1, 2).flatten().tolist()
    grid = (times // across * rows, across * columns)
    side = Side("frames, in turn", [*order], seen_by(model, sheet[None]), grid)
    panel = Panel(f"{side.name}, to each other", 0, 0, first(own(maps).own), rolls=True)
    view = View(loaded.task, [], [side], kept([panel]))
    classes(loaded, view, lambda: model(pixels))
    return view


def transcribed(loaded: Any, sound: str | Path) -> View:
    """What was said, word by word, and when: a sound as its spectrogram, without the silence that fills it up."""
    loaded.check(("tokenizer",))
    model = loaded.model
    waveform, rate = read_wav(sound)
    features, real = loaded.preprocess.with_mask(waveform.mean(0), rate)
    features = features.to(device_of(model), next(model.parameters()).dtype)
    start, made = written_ids(model, features, None, None, True)
    heard = -(-int(real.sum()) // 2)  # two frames make a token
    group = -(-heard // CELLS)
    count = -(-heard // group)
    frames = features[0, :, : 2 * heard].float().flip(0)
    light = ((frames - frames.min()) / (frames.max() - frames.min()).clamp(min=1e-6) * 255).byte()
    picture = Image.fromarray(light.cpu().numpy()).resize((SHOWN, TALL))
    cells: list[str | int] = [*range(count)]
    read = Side("sound", [*cells, "[silence]"], picture, (1, count), (1.0, count * group / heard))
    view = wrote(loaded, features, start, made, read)
    across = view.panels[0]
    across.maps = [None if m is None else grouped(m, heard, group) for m in across.maps]
    view.panels = [panel for panel in view.panels if panel.queries != 0]
    return view


def grouped(one: Tensor, heard: int, group: int) -> Tensor:
    """``(heads, queries, cells + 1)`` of a map of all tokens: so many of what was heard together, and the rest."""
    sound = F.pad(one[..., :heard], (0, -heard % group)).unflatten(-1, (-1, group)).sum(-1)
    return torch.cat([sound, one[..., heard:].sum(-1, keepdim=True)], dim=-1)
