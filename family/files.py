"""Files that are whole or not there: written aside, then renamed."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a system says that has no room left for a file."""


@contextmanager
def whole(file: str | Path) -> Iterator[Path]:
    """Where to write a file: beside its place, which it takes once it is whole.

    Who is killed meanwhile leaves the old file as it was, and beside it ``.NAME.new``, which the next one writes
    over. What is no plain file, such as ``/dev/stdout``, is written directly.

    Raises:
        OSError: it cannot be written, by the name of the file; the old one is whole, and nothing is beside it.
    """
    place = Path(os.path.realpath(file))  # a link stays one
    if place.exists() and not place.is_file():
        yield place
        return
    if place.exists() and not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    new = place.with_name(f".{place.name}.new")
    try:
        yield new
        os.replace(new, place)
    except BaseException as error:
        new.unlink(missing_ok=True)
        said = no_room(error)
        if said is None:
            raise
        raise OSError(said, os.strerror(said), str(file)) from error


def no_room(error: BaseException) -> int | None:
    """The system's number for it, where an error says that there is no room left, be it in words of torch or
    safetensors."""
    seen: BaseException | None = error
    while seen is not None:
        found = re.search(r"\(os error (\d+)\)", str(seen))
        number = seen.errno if isinstance(seen, OSError) else found and int(found[1])
        if number in FULL:
            return number
        seen = seen.__cause__ or seen.__context__
    return None


def write_text(file: str | Path, text: str) -> None:
    """A text in UTF-8, whole or not at all."""
    with whole(file) as new:
        new.write_text(text, encoding="utf-8")


def write_bytes(file: str | Path, content: bytes | memoryview) -> None:
    """As they are, whole or not at all."""
    with whole(file) as new:
        new.write_bytes(content)


def write_picture(file: str | Path, picture: Any, kind: str = "PNG") -> None:
    """A picture of PIL's, by PIL's name of a kind, whole or not at all."""
    with whole(file) as new:
        picture.save(new, format=kind)
