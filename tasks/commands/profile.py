"""``family profile --config NAME [--config NAME ...] --out DIR``: time and memory as lengths grow."""

from __future__ import annotations

import argparse
from pathlib import Path

from tasks.commands.examples import command_parser
from tasks.errors import UserError, at_least


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "profile",
        __doc__,
        "family profile --config gpt/shapes --out profile",
        more="Options of a config, such as --data.root FOLDER, hold for all configs.",
    )
    made.add_argument(
        "--config", action="append", required=True, help="TASK/NAME or a file; several are compared"
    )
    made.add_argument(
        "--lengths",
        help="tokens of a text, or pixels of a picture's side: 64,128,256 (default: these, or 1, 2 "
        "and 3 times the side that the first config's data have)",
    )
    made.add_argument("--batch_sizes", default="1,8", help="rows of a batch (default: 1,8)")
    made.add_argument("--repeats", type=int, default=7, help="timed runs, whose median counts")
    made.add_argument("--out", type=Path, required=True, help="a new folder")
    return made


def run(arguments: list[str]) -> None:
    """Measure, print the tables, and write them with a plot and JSON."""
    options, rest = parser().parse_known_args(arguments)
    lengths = None if options.lengths is None else numbers("lengths", options.lengths)
    batch_sizes = numbers("batch_sizes", options.batch_sizes)
    at_least(1, of="--", repeats=options.repeats)
    check_new(options.out)
    # Here, because the command line's module reads this one.
    from tasks.cli.configs import find_config
    from tasks.compare.cases import config_name
    from tasks.compare.measure import write_json
    from tasks.compare.profile import profile_configs
    from tasks.compare.profile_report import page, write_profile

    paths = [find_config(name) for name in options.config]
    named = [(config_name(path), path) for path in paths]
    results = profile_configs(named, rest, lengths, batch_sizes, options.repeats)
    write_json(options.out / "profile.json", {"options": rest, **results})
    write_profile(results, options.out)
    print(f"\n{page(results)}")
    print(f"The profile is in {options.out}.")


def numbers(name: str, given: str) -> list[int]:
    """Whole numbers with commas between them, from small to large.

    Raises:
        UserError: anything else.
    """
    parts = given.replace(" ", "").split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise UserError(f"--{name} must be whole numbers above 0 such as 64,128, not {given!r}.")
    return sorted({int(part) for part in parts})


def check_new(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        UserError: see above.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out {folder} exists and is not empty: choose another folder.")
