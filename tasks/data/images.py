"""Pictures and masks from files of every kind, each mistake one sentence that names the file."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from family.inputs import pictures
from family.inputs.pictures import IMAGE_ENDINGS as IMAGE_ENDINGS
from tasks.data.sampling import Pick
from tasks.errors import UserError, user_errors

log = logging.getLogger(__name__)
Example = TypeVar("Example")

OnBad = Literal["stop", "skip"]
"""What to do with a picture that cannot be read: end the run, or go on without it."""

WIDEST = 16_384
"""Pixels of a side: three gigabytes, were all of a picture's so long."""

read_image = user_errors()(pictures.read_image)
open_picture = user_errors()(pictures.open_picture)
decode = user_errors()(pictures.decode)
size_of = user_errors()(pictures.size_of)


def picture_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    """``(height, width)`` of what ``data.image_size`` says: one number for both, or two.

    Raises:
        UserError: not one or two numbers of at least 1, or more than fit into memory.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or not min(size) >= 1:
        raise UserError(
            f"data.image_size must be (height, width), both at least 1, not {image_size}."
        )
    if max(size) > WIDEST:
        raise UserError(f"data.image_size must be at most {WIDEST}, not {image_size}.")
    return size[0], size[1]


def check_normalisation(mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse what no picture can be normalised by.

    Raises:
        UserError: not three numbers each, or a deviation that is not above 0.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3 or not all(map(math.isfinite, values)):
            raise UserError(f"data.{name} must be 3 numbers, one a channel, not {list(values)}.")
    if min(std) <= 0:
        raise UserError(f"data.std must be above 0, not {min(std)}.")


def check_scale(scale: tuple[float, float]) -> None:
    """Refuse what is no range of sizes to draw from.

    Raises:
        UserError: not above 0, the greater first, or without end.
    """
    if not 0 < scale[0] <= scale[1] < math.inf:
        raise UserError(f"data.scale needs two shares, the smaller first, not {list(scale)}.")


def list_images(folder: Path) -> list[Path]:
    """The pictures below a folder, sorted; hidden files and folders are left out.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}.")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_ENDINGS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def read_mask(path: Path) -> np.ndarray:
    """``(height, width)`` int64, the class id of each pixel; of a palette, the indices.

    Raises:
        UserError: missing, no picture, or more than one channel.
    """
    image = decode(path, None, upright=False)
    if len(image.getbands()) > 1:
        raise UserError(
            f"{path} has {len(image.getbands())} channels ({image.mode}): a mask has one, "
            "which holds the class id of each pixel."
        )
    values = np.asarray(image)
    if not np.issubdtype(values.dtype, np.integer) and values.dtype != bool:
        raise UserError(f"{path} holds {values.dtype} numbers: a mask holds whole class ids.")
    # Pillow stretches grey of 2 and 4 bits, which PNG optimisers make of small ids, to 0..255.
    return values.astype(np.int64) // image.info.get("stretched", 1)


# --- Pictures that cannot be read ------------------------------------------------------------


def check_images(paths: Sequence[Path], on_bad: OnBad) -> list[int]:
    """Indices of the pictures whose headers can be read; nothing is decoded.

    With "skip" one warning names the others.

    Raises:
        UserError: "stop" and one that cannot be read, or none that can.
    """

    def read(path: Path) -> None:
        open_picture(path, None).close()

    return readable(paths, read, on_bad)


def readable(
    items: Iterable[Example], read: Callable[[Example], Any], on_bad: OnBad, of: str = "pictures"
) -> list[int]:
    """Indices of what can be read, several at a time; see :func:`check_images`.

    Args:
        of: what the items are.
    """

    def mistake(item: Example) -> str | None:
        try:
            read(item)
        except UserError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(8) as pool:
        mistakes = list(pool.map(mistake, items))
    return kept(mistakes, on_bad, of)


def kept(mistakes: Sequence[str | None], on_bad: OnBad, of: str = "pictures") -> list[int]:
    """Indices of the pictures without a mistake; see :func:`check_images`."""
    bad = [mistake for mistake in mistakes if mistake]
    if not bad:
        return list(range(len(mistakes)))
    hint = "data.on_bad=skip would leave it out"
    if on_bad == "stop":
        more = f" ({len(bad)} {of} are so)" if len(bad) > 1 else ""
        raise UserError(f"{bad[0].rstrip('.')}{more}; {hint}.")
    if len(bad) == len(mistakes):
        raise UserError(f"none of {len(bad)} {of} can be read: {bad[0]}")
    shown = " ".join(bad[:3]) + (" ..." if len(bad) > 3 else "")
    log.warning("%d of %d %s are left out: %s", len(bad), len(mistakes), of, shown)
    return [index for index, mistake in enumerate(mistakes) if not mistake]


_warned: set[str] = set()


def read_or_next(read: Callable[[int], Example], index: int, count: int, on_bad: OnBad) -> Example:
    """``read(index)``; with "skip", where that is a mistake, the next example that is none.

    Each mistake is warned of once.

    Raises:
        UserError: "stop" and a mistake, or nothing but mistakes.
    """
    for step in range(count):
        try:
            return read((index + step) % count)
        except UserError as error:
            if on_bad == "stop":
                raise
            warn_once(f"another picture is taken instead: {error}")
    raise UserError(f"none of {count} pictures can be read.")


def read_those(
    read: Callable[[int], Example],
    indices: Sequence[int],
    count: int,
    on_bad: OnBad,
    training: bool = False,
) -> list[Example]:
    """Examples of a batch. With "skip" the next ones stand in for those that cannot be read in training; in
    evaluation, where none must count twice, they are left out, unless nothing would be left.

    Raises:
        UserError: see :func:`read_or_next`.
    """
    if training:
        return [read_or_next(read, index, count, on_bad) for index in indices]
    examples = []
    for index in indices:
        try:
            examples.append(read(index))
        except UserError as error:
            if on_bad == "stop":
                raise
            warn_once(f"left out: {error}")
    return examples or [read_or_next(read, indices[0], count, on_bad)]


def read_picks(
    example: Callable[[Pick], Example],
    picks: Sequence[Pick],
    count: int,
    on_bad: OnBad,
    training: bool,
) -> list[Example]:
    """As :func:`read_those`, of examples that are read by a pick; a stand-in is of the same epoch."""

    def read(index: int) -> Example:
        return example(picks[0]._replace(index=index))

    return read_those(read, [pick.index for pick in picks], count, on_bad, training)


def warn_once(message: str) -> None:
    """A warning, but not the same twice."""
    if message not in _warned:
        _warned.add(message)
        log.warning(message)
