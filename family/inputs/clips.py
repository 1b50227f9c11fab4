"""Clips: a folder of pictures, one a frame, or a video file, of which frames are taken evenly.

Video files are read by the ``av`` package (``pip install transformer-family[video]``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from family.inputs.pictures import IMAGE_ENDINGS, WHITE, Colour, as_picture, read_image, size_of

VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg")


def evenly(length: int, count: int) -> list[int]:
    """The frames in the middle of ``count`` equal parts of a clip.

    Raises:
        ValueError: there are fewer frames.
    """
    if length < count:
        frames = "frame" if length == 1 else "frames"
        raise ValueError(f"has {length} {frames}, but {count} are to be taken: it is too short.")
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_ENDINGS and path.is_file()


def frame_files(folder: Path) -> list[Path]:
    """The pictures right in a folder, by name, numbers in it by their value: ``2.png`` before ``10.png``."""

    def key(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"([0-9]+)", path.name)
        return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]

    found = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())
    return sorted((path for path in found if path.name[0] != "."), key=key)


def list_clips(folder: Path) -> list[Path]:
    """The clips below a folder, or the folder itself, where frames lie right in it: sorted; hidden ones
    are left out.

    Raises:
        ValueError: no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}.")
    below = [path for path in folder.rglob("*") if path.is_dir() or is_video(path)]
    shown = (p for p in below if not any(x[0] == "." for x in p.relative_to(folder).parts))
    return sorted(p for p in (folder, *shown) if not p.is_dir() or frame_files(p))


def check_clip(clip: Path, frames: int) -> int:
    """The length of a clip; of the frames that would be taken the headers alone are read.

    Raises:
        ValueError: no clip, a shorter one, a frame that cannot be read, or frames of unequal sizes.
    """
    if is_video(clip):
        length = video_length(clip)
        taken_of(clip, length, frames)
        return length
    files = clip_files(clip)
    taken = [files[i] for i in taken_of(clip, len(files), frames)]
    refuse_unequal(clip, [path.name for path in taken], list(map(size_of, taken)))
    return len(files)


def read_clip(clip: Path, frames: int, background: Colour = WHITE) -> list[Image.Image]:
    """So many frames of a clip, evenly over its length, as RGB.

    Raises:
        ValueError: see :func:`check_clip`; or a file that is cut short.
    """
    if is_video(clip):
        return decoded(clip, taken_of(clip, video_length(clip), frames))
    files = clip_files(clip)
    taken = [files[i] for i in taken_of(clip, len(files), frames)]
    pictures = [read_image(path, background=background) for path in taken]
    sizes = [(picture.height, picture.width) for picture in pictures]
    refuse_unequal(clip, [path.name for path in taken], sizes)
    return pictures


def as_clip(
    given: str | Path | Sequence[Any], frames: int, background: Colour = WHITE
) -> list[Image.Image]:
    """The same of a clip that is given by its path, or as a list of its frames, pictures or paths.

    Raises:
        ValueError: see :func:`read_clip`.
    """
    if isinstance(given, str | Path):
        return read_clip(Path(given), frames, background)
    taken = taken_of("the clip", len(given), frames)
    pictures = [as_picture(given[i], background) for i in taken]
    sizes = [(picture.height, picture.width) for picture in pictures]
    refuse_unequal("the clip", [f"frame {i}" for i in taken], sizes)
    return pictures


def clip_files(clip: Path) -> list[Path]:
    """The frames of a clip that is a folder.

    Raises:
        ValueError: there are none.
    """
    if not clip.is_dir():
        what = (
            "is neither a folder of frames nor a video file" if clip.exists() else "does not exist"
        )
        raise ValueError(f"{clip} {what}.")
    files = frame_files(clip)
    if not files:
        raise ValueError(f"{clip} has no pictures: a clip has one for each frame.")
    return files


def taken_of(clip: Path | str, length: int, frames: int) -> list[int]:
    """See :func:`evenly`; a message names the clip."""
    try:
        return evenly(length, frames)
    except ValueError as error:
        raise ValueError(f"{clip} {error}") from None


def refuse_unequal(
    clip: Path | str, names: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> None:
    """Refuse frames that are not all as high and wide as the first.

    Raises:
        ValueError: names one that is not.
    """
    for name, size in zip(names, sizes, strict=True):
        if size != sizes[0]:
            (height, width), (first, second) = size, sizes[0]
            raise ValueError(
                f"{clip} has frames of unequal sizes: {names[0]} is {first} x {second} pixels, {name} "
                f"{height} x {width}."
            )


# --- Video files -----------------------------------------------------------------------------


def opened(path: Path) -> Any:
    """A video file, and the module that reads it.

    Raises:
        ValueError: the package is missing, or it is no video.
    """
    try:
        import av
    except ImportError:
        raise ValueError(
            f"{path}: video files are read by the av package: pip install transformer-family[video]; "
            "folders of frames need none."
        ) from None
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a video: {error}.") from None
    if not container.streams.video:
        container.close()
        raise ValueError(f"{path} has no video in it.")
    return container, av.error.FFmpegError


def video_length(path: Path) -> int:
    """The frames of a video file: as its header says, or else counted.

    Raises:
        ValueError: it cannot be read.
    """
    container, mistakes = opened(path)
    with container:
        try:
            said = int(container.streams.video[0].frames)
            return said or sum(1 for _ in container.decode(video=0))
        except mistakes as error:
            raise ValueError(f"{path} is cut short or damaged: {error}.") from None


def decoded(path: Path, taken: Sequence[int]) -> list[Image.Image]:
    """These frames of a video file, in rising order, as RGB.

    Raises:
        ValueError: it cannot be read, or ends before the last of them.
    """
    container, mistakes = opened(path)
    wanted, found = {*taken}, []
    with container:
        try:
            for i, frame in enumerate(islice(container.decode(video=0), taken[-1] + 1)):
                if i in wanted:
                    found.append(frame.to_image().convert("RGB"))
        except mistakes as error:
            raise ValueError(f"{path} is cut short or damaged: {error}.") from None
    if len(found) < len(taken):
        raise ValueError(f"{path} is cut short: it ends before frame {taken[len(found)]}.")
    return found
