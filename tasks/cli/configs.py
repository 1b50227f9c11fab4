"""The configs that come with the project, and how they are called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.errors import UserError, closest

HERE = Path(__file__).parent.parent
CONFIG_FOLDERS = (HERE / "configs", HERE.parent / "configs")
"""Where configs lie in a wheel, and in a checkout."""

MOST = 100_000
"""Values in a config; ours have some fifty."""


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
        check_size(Path(name), check_utf8(Path(name)))
        return name
    files = config_files()
    found = files.get(name.removesuffix(".yaml"))
    if found is not None:
        return str(found)
    hint = closest(name, files) or " family list names them all."
    raise UserError(f"--config {name}: no such file, nor a config of ours.{hint}")


def check_utf8(config: Path) -> str:
    """The text of a config.

    Raises:
        UserError: bytes that are not UTF-8, with their offset.
    """
    try:
        return config.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"--config {config} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        message = f"--config {config} is not UTF-8: see the byte at offset {error.start}."
        raise UserError(message) from None


def check_size(config: Path, text: str) -> None:
    """Refuse a config whose anchors stand for more than anybody writes: a parser would write them all out.

    Raises:
        UserError: see above, or what is nested too deep.
    """
    import yaml  # here, so that a list of the configs is quick

    try:
        values = written_out(yaml.safe_load(text), {})
    except yaml.YAMLError:
        return  # the parser says where
    except RecursionError:
        raise UserError(f"--config {config} is nested too deep.") from None
    if values > MOST:
        raise UserError(f"--config {config} holds over {MOST:,} values, its anchors written out.")


def written_out(tree: Any, known: dict[int, float]) -> float:
    """How many values are in a tree that may hold one part many times, or itself.

    Args:
        known: by their identity, the parts that were counted.
    """
    if not isinstance(tree, dict | list):
        return 1
    if id(tree) not in known:
        known[id(tree)] = math.inf  # where it holds itself
        parts = tree.values() if isinstance(tree, dict) else tree
        known[id(tree)] = 1 + sum(written_out(part, known) for part in parts)
    return known[id(tree)]


def resolve_configs(arguments: Sequence[str]) -> list[str]:
    """Replace the names of shipped configs by their paths."""
    resolved = list(arguments)
    for i, argument in enumerate(arguments):
        if argument.startswith("--config="):
            resolved[i] = "--config=" + find_config(argument.removeprefix("--config="))
        elif argument == "--config" and i + 1 < len(arguments):
            resolved[i + 1] = find_config(arguments[i + 1])
    return resolved
