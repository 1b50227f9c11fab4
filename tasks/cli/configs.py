"""The configs that come with the project, and how they are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.errors import UserError, closest

HERE = Path(__file__).parent.parent
CONFIG_FOLDERS = (HERE / "configs", HERE.parent / "configs")
"""Where configs lie in a wheel, and in a checkout."""


def config_files() -> dict[str, Path]:
    """``TASK/NAME`` of every config, in their order -> its file."""
    found = {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for folder in reversed(CONFIG_FOLDERS)
        for path in folder.glob("*/*.yaml")
    }
    return dict(sorted(found.items()))


def find_config(name: str) -> str:
    """A path as it is, or the name of a config that we ship: ``gpt/shapes``.

    Raises:
        UserError: there is no such config, or it is no file, or not UTF-8.
    """
    try:
        there = Path(name).exists()
    except (OSError, ValueError):  # too long for a name, or no characters of one
        there = False
    if there:
        if not Path(name).is_file():
            raise UserError(f"--config {name} is no file: give one of YAML.")
        check_utf8(Path(name))
        return name
    files = config_files()
    found = files.get(name.removesuffix(".yaml"))
    if found is not None:
        return str(found)
    hint = closest(name, files) or " family list names them all."
    raise UserError(f"--config {name}: no such file, nor a config of ours.{hint}")


def check_utf8(config: Path) -> None:
    """Refuse a config that is no text.

    Raises:
        UserError: bytes that are not UTF-8, with their offset.
    """
    try:
        config.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"--config {config} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        message = f"--config {config} is not UTF-8: see the byte at offset {error.start}."
        raise UserError(message) from None


def resolve_configs(arguments: Sequence[str]) -> list[str]:
    """Replace the names of shipped configs by their paths."""
    resolved = list(arguments)
    for i, argument in enumerate(arguments):
        if argument.startswith("--config="):
            resolved[i] = "--config=" + find_config(argument.removeprefix("--config="))
        elif argument == "--config" and i + 1 < len(arguments):
            resolved[i + 1] = find_config(arguments[i + 1])
    return resolved
