"""What the commands that read pictures share."""

from __future__ import annotations

import argparse
from pathlib import Path

from tasks.data.images import list_images
from tasks.errors import UserError


def parser(
    name: str, description: str | None, sentence: str | None = None
) -> argparse.ArgumentParser:
    """Checkpoint first, then maybe a sentence, explained by ``sentence``, then pictures."""
    made = argparse.ArgumentParser(f"family {name}", description=description)
    made.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    if sentence is not None:
        made.add_argument("sentence", help=sentence)
    made.add_argument("images", nargs="+", type=Path, help="picture files, or folders of them")
    return made


def find_pictures(places: list[Path]) -> list[Path]:
    """The files themselves, and all pictures inside folders.

    Raises:
        UserError: a path that does not exist, or nothing found.
    """
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise UserError(f"{place} does not exist.")
        found += list_images(place) if place.is_dir() else [place]
    if not found:
        raise UserError(f"no pictures in {', '.join(map(str, places))}.")
    return found


def make_folder(path: Path) -> None:
    """The folder that results go into, unless it is there.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = "is a file" if path.is_file() else f"cannot be made ({error.strerror})"
        raise UserError(f"--out {path} {what}: give a folder.") from None


def output_names(paths: list[Path]) -> list[str]:
    """A name for each picture's results, without ending; files of one name in two folders differ."""
    names: list[str] = []
    for path in paths:
        name, number = path.stem, 1
        while name in names:
            number += 1
            name = f"{path.stem}-{number}"
        names.append(name)
    return names
