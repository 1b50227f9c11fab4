"""``family list``: the configs that come with the project."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def config_names(folders: Iterable[Path]) -> list[str]:
    """``TASK/NAME`` of every config."""
    found = {
        str(path.relative_to(folder).with_suffix(""))
        for folder in folders
        for path in folder.glob("*/*.yaml")
    }
    return sorted(found)


def run(arguments: list[str], folders: Iterable[Path]) -> None:
    """Print each config with the first line of its header."""
    folders = list(folders)
    for name in config_names(folders):
        path = next(p for f in folders if (p := f / f"{name}.yaml").is_file())
        first = path.read_text(encoding="utf-8").splitlines()[0]
        print(f"{name:32} {first.removeprefix('#').strip()}")
