"""``family list [TASK]``: the configs that come with the project."""

from __future__ import annotations

import shutil
import textwrap
from functools import partial
from itertools import takewhile
from pathlib import Path

from tasks.cli.configs import config_files
from tasks.commands.examples import command_parser
from tasks.errors import UserError, closest


def run(arguments: list[str]) -> None:
    """Print each config with the sentences that its header begins with."""
    parser = command_parser("list", __doc__, "family list", "family list detection")
    parser.add_argument("task", nargs="?", help="of this folder of configs alone")
    task = parser.parse_args(arguments).task
    files = config_files()
    folders = list(dict.fromkeys(name.partition("/")[0] for name in files))
    if task is not None and task not in folders:
        hint = closest(task, folders) or f" There are: {', '.join(folders)}."
        raise UserError(f"there are no configs of {task!r}.{hint}")
    fill = partial(textwrap.fill, break_on_hyphens=False, break_long_words=False)
    wide = max(60, shutil.get_terminal_size((100, 24)).columns)
    for name, path in files.items():
        if task in (None, name.partition("/")[0]):
            print(fill(f"{name:36} {header(path)}", wide, subsequent_indent=" " * 37))


def header(path: Path) -> str:
    """What a config says of itself, up to the commands that it shows."""
    lines = path.read_text(encoding="utf-8").splitlines()
    said = takewhile(lambda line: line.startswith("#") and not line.startswith("#  "), lines)
    return " ".join(line.removeprefix("#").strip() for line in said)
