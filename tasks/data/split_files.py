"""The files of a data set's splits, and the one file that several of them are parts of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.data.splits import names_of, usual
from tasks.errors import UserError


def own_file(root: Path, name: str, endings: Sequence[str]) -> Path | None:
    """The file of a split, its name with one of the endings, or one that is called just ``name``; None
    where it has none."""
    files = [root / f"{stem}{end}" for stem in names_of(name) for end in endings]
    return next((file for file in (*files, root / name) if file.is_file()), None)


def find_file(root: Path, option: str, name: str, endings: Sequence[str], kind: str) -> Path:
    """As :func:`own_file`.

    Args:
        option: of the data module, which gave the name.
        kind: what files with these endings are called, such as "table".

    Raises:
        UserError: there is none.
    """
    if not root.is_dir():
        what = f"is neither a folder nor a {kind} ({', '.join(endings)})"
        raise UserError(f"data.root {root} {what if root.exists() else 'does not exist'}.")
    found = own_file(root, name, endings)
    if found is not None:
        return found
    have = ", ".join(path.name for path in files_of(root, endings)) or f"no {kind} at all"
    others = f"{', '.join(endings[:-1])} or {endings[-1]}" if endings[1:] else endings[0]
    raise UserError(f"{root} has no {name}{others} for data.{option}={name!r}, but {have}.")


def files_of(root: Path, endings: Sequence[str]) -> list[Path]:
    """What a folder has with one of these endings, by name."""
    return sorted(path for path in root.iterdir() if path.suffix in endings)


def shared_file(
    root: Path, splits: Mapping[str, str], endings: Sequence[str]
) -> tuple[Path | None, list[str]]:
    """The file that several splits are parts of, and which those are: that of all, or, where "val" has
    none of its own, that of "train". None where each has its own, as where there is a file of "test" or
    "val" alone.

    Args:
        splits: of "train", "val" and "test" the name that the options give it; only a split of the usual
            name is a part of another's file.
    """
    whole = [split for split, name in splits.items() if split == name]
    if root.is_file() and root.suffix in endings:
        return root, whole
    if not root.is_dir():
        return None, []
    files = files_of(root, endings)
    if len(files) == 1 and len(whole) == len(splits):
        alone = usual(files[0].stem) in ("val", "test")
        return (None, []) if alone else (files[0], whole)
    if "val" in whole and own_file(root, splits["val"], endings) is None:
        return own_file(root, splits["train"], endings), ["train", "val"]
    return None, []
