"""Files that git left out: in a clone without Git LFS a small text stands in the place of each large one."""

from __future__ import annotations

import os
from pathlib import Path

MARKS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
"""What such a text begins with; the second is of Git LFS's first versions."""


def refuse_pointer(source: Path | bytes, name: str | None = None) -> None:
    """Refuse a pointer, before it is taken for what it stands for, and what is no file at all, which may
    never end; a file that is missing is none.

    Args:
        source: a file, or its bytes.
        name: what the message calls it; the path where there is one.

    Raises:
        ValueError: see above; or a pipe or a device.
    """
    start, longest = source, max(map(len, MARKS))
    if isinstance(source, Path):
        if os.path.exists(source) and not os.path.isfile(source) and not os.path.isdir(source):
            raise ValueError(f"{name or source} is no file: a pipe or a device may never end.")
        try:
            with source.open("rb") as file:
                start = file.read(longest)
        except (OSError, ValueError):  # whoever reads it says so
            return
    if isinstance(start, bytes) and start.startswith(MARKS):
        name = name or (str(source) if isinstance(source, Path) else "the file")
        raise ValueError(f"{name} is a Git LFS pointer: run git lfs pull.")
