"""``family new TASK --data FOLDER``: a config fitted to a folder of data, to begin with: sizes, lengths,
vocabulary, and steps for a few minutes. ``family check`` and ``family fit`` take it by its path."""

from __future__ import annotations

import argparse
from pathlib import Path

from tasks.cli.configs import config_files
from tasks.commands.examples import command_parser
from tasks.errors import UserError, at_least, closest

BASE = "shapes"
"""The config of each task that others begin with."""
ALIKE = {"language_modeling": "gpt/shapes", "text_to_image": "text_to_image/shapes_dit"}
"""Where it is called otherwise."""


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "new",
        __doc__,
        "family new image_classification --data FOLDER",
        "family new text_classification --data reviews.csv --data.label_column stars --out reviews.yaml",
        "family new translation --data FOLDER --data.source de --data.target en",
        more="Other options are those of family fit, and stand in the config that is written.",
    )
    made.add_argument("task", help="a folder of family list, such as image_classification")
    made.add_argument("--data", required=True, help="what data.root takes: a folder, or a file")
    made.add_argument(
        "--out", type=Path, help="the config (default: TASK.yaml), which must not exist"
    )
    made.add_argument("--minutes", type=float, default=3.0, help="that training is to take here")
    return made


def run(arguments: list[str]) -> None:
    """Look at the data, write the config, and say what to do with it."""
    options, rest = parser().parse_known_args(arguments)
    base = base_of(options.task)
    out = options.out or Path(f"{options.task}.yaml")
    at_least(0.1, of="--", minutes=options.minutes)
    if out.exists():
        raise UserError(f"--out {out} exists: choose another name, or remove it.")
    if not Path(options.data).exists():
        raise UserError(f"--data {options.data} does not exist.")
    from tasks.commands.fitted import fit_config  # imports torch

    text, said = fit_config(base, options.task, options.data, rest, options.minutes)
    from family.files import write_text

    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text.replace("--config FILE", f"--config {out}", 2))
    print("\n".join(said))
    print(f"{out} is written; next:\n  family check --config {out}\n  family fit --config {out}")


def base_of(task: str) -> Path:
    """The config that a task's own begins with.

    Raises:
        UserError: no such task.
    """
    files = config_files()
    known = sorted(
        {*ALIKE, *(name.partition("/")[0] for name in files if name.endswith(f"/{BASE}"))}
    )
    known = [name for name in known if name not in ("gpt", "compare")]
    name = ALIKE.get(task, f"{task}/{BASE}")
    if task not in known or name not in files:
        hint = closest(task, known) or f" There are: {', '.join(known)}."
        raise UserError(f"there is no task {task!r} to begin with.{hint}")
    return files[name]
