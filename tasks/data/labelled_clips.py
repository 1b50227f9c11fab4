"""Clips and their classes: from folders, and of the world of shapes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from family.inputs import clips
from family.inputs.pictures import Colour
from tasks.data import shapes_video
from tasks.data.images import OnBad, readable
from tasks.data.labelled_images import Kind, Labelled, labelled_folder
from tasks.errors import UserError, user_errors

log = logging.getLogger(__name__)

list_clips = user_errors()(clips.list_clips)
check_clip = user_errors()(clips.check_clip)
read_clip = user_errors()(clips.read_clip)


def labelled_clips(folder: Path, frames: int, on_bad: OnBad) -> Labelled:
    """A folder of folders of clips, one a class; those may have folders of their own.

    Raises:
        UserError: see :func:`~tasks.data.labelled_images.labelled_folder`; frames that belong to no clip,
            or a clip that is too short or has frames of unequal sizes.
    """

    def find(place: Path) -> list[Path]:
        found = list_clips(place)
        if found[:1] == [place]:
            stray = clips.frame_files(place)[0]
            raise UserError(
                f"{stray} lies right in the folder of a class: the frames of each clip need a folder of "
                "their own in it."
            )
        return found

    kind = Kind("clips", find, partial(check_clips, frames), partial(read_frames, frames))
    return labelled_folder(folder, on_bad, kind)


def check_clips(frames: int, paths: list[Path], on_bad: OnBad) -> list[int]:
    """Indices of the clips that can be read; it is said where they are of unequal lengths."""
    lengths: list[int] = []
    keep = readable(paths, lambda path: lengths.append(check_clip(path, frames)), on_bad, "clips")
    if lengths and min(lengths) < max(lengths):
        shown = min(lengths), max(lengths), frames
        log.info("clips of %d to %d frames: of each %d are taken, evenly over its length", *shown)
    return keep


def read_frames(
    frames: int, paths: Sequence[Path], index: int, background: Colour
) -> list[Image.Image]:
    return read_clip(paths[index], frames, background)


def labelled_shapes(count: int, size: int, frames: int, seed: int, split: str) -> Labelled:
    """Clips of the built-in world, ``size`` pixels square; the class is what moves which way."""
    scenes = [shapes_video.sample(i, seed, split) for i in range(count)]
    labels = np.array(list(map(shapes_video.label, scenes)))
    names = [str(i) for i in range(count)]
    return Labelled(list(shapes_video.CLASSES), labels, names, partial(draw, scenes, size, frames))


def draw(
    scenes: Sequence[shapes_video.MovingScene], size: int, frames: int, index: int, _: Colour
) -> list[Image.Image]:
    return list(map(Image.fromarray, shapes_video.draw(scenes[index], frames, size)))
