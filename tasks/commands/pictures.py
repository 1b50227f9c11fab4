"""What the commands that read pictures share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from PIL import Image

from family.inference.batches import PICTURES, chunks
from family.inputs.pictures import WHITE
from tasks.commands.examples import command_parser
from tasks.commands.running import model_options
from tasks.data.images import list_images, read_image
from tasks.data.labelled_clips import list_clips
from tasks.errors import UserError
from tasks.runs.checkpoints import Loaded

Read = TypeVar("Read")


def parser(
    name: str,
    description: str | None,
    *examples: str,
    sentence: str | None = None,
    places: str = "picture files, or folders of them",
) -> argparse.ArgumentParser:
    """Checkpoint first, then maybe a sentence, explained by ``sentence``, then pictures, or what else
    ``places`` says."""
    made = command_parser(name, description, *examples)
    made.add_argument("checkpoint", help="a .ckpt file, or the folder of a run")
    if sentence is not None:
        made.add_argument("sentence", help=sentence)
    made.add_argument("images", nargs="+", type=Path, help=places)
    on_bad_option(made)
    model_options(made, PICTURES)
    return made


def on_bad_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--on_bad`` to a command."""
    parser.add_argument(
        "--on_bad",
        choices=["stop", "skip"],
        default="stop",
        help="at a picture that cannot be read: end, or leave it out with a warning",
    )


def read_pictures(
    paths: Iterable[Path], loaded: Loaded, options: argparse.Namespace
) -> Iterator[list[tuple[Path, Image.Image]]]:
    """Pictures and their paths, ``--batch_size`` at a time, as the model of ``loaded`` is shown them.

    Raises:
        UserError: one that cannot be read, or with ``--on_bad skip`` none that can.
    """
    background = getattr(loaded.preprocess, "background", WHITE)
    return read_all(paths, lambda path: read_image(path, background=background), options)


def read_all(
    paths: Iterable[Path],
    read: Callable[[Path], Read],
    options: argparse.Namespace,
    of: str = "pictures",
) -> Iterator[list[tuple[Path, Read]]]:
    """What ``read`` makes of each path, see :func:`read_pictures`."""
    bad: list[str] = []

    def readable() -> Iterator[tuple[Path, Read]]:
        found = 0
        for path in paths:
            try:
                made = read(path)
                found += 1
                yield path, made
            except UserError as error:
                if options.on_bad == "stop":
                    hint = "--on_bad skip would leave it out"
                    raise UserError(f"{str(error).rstrip('.')}; {hint}.") from None
                bad.append(str(error))
                print(f"family: left out: {error}", file=sys.stderr)
        if bad and not found:
            raise UserError(f"none of {len(bad)} {of} can be read: {bad[0]}")

    yield from chunks(readable(), options.batch_size)


def find_pictures(places: list[Path]) -> list[Path]:
    """The files themselves, and all pictures inside folders.

    Raises:
        UserError: a path that does not exist, or nothing found.
    """
    return find_files(places, list_images, "pictures", "")


def find_clips(places: list[Path]) -> list[Path]:
    """The clips themselves, folders of frames or video files, and all of them inside folders.

    Raises:
        UserError: a path that does not exist, or nothing found.
    """
    return find_files(places, list_clips, "clips", ": a clip is a folder of frames")


def find_files(
    places: list[Path], inside: Callable[[Path], list[Path]], of: str, hint: str
) -> list[Path]:
    """The files themselves, and what is ``inside`` folders.

    Raises:
        UserError: a path that does not exist, or nothing found.
    """
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise UserError(f"{place} does not exist.")
        found += inside(place) if place.is_dir() else [place]
    if not found:
        raise UserError(f"no {of} in {', '.join(map(str, places))}{hint}.")
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


def output_names(paths: list[Path], endings: tuple[str, ...] = ("",)) -> list[str]:
    """A name for each picture's results, without ending; files of one name in two folders differ.

    Args:
        endings: what is added to a name: none of a picture's results has the name of another's.
    """
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        name, number = path.stem, 1
        while taken & {name + ending for ending in endings}:
            number += 1
            name = f"{path.stem}-{number}"
        names.append(name)
        taken |= {name + ending for ending in endings}
    return names
