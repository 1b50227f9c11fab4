"""``family transplant --config NAME --source CKPT --out DIR``: what a model would take from another."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from family.files import write_text
from tasks.commands.examples import command_parser
from tasks.commands.profile import check_new
from tasks.errors import UserError


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "transplant",
        __doc__,
        "family transplant --config image_text/shapes --source RUN --out report",
        more="family fit does the same before it trains, by the config's model.transplant. Options "
        "of the config, such as --data.root FOLDER, may follow.",
    )
    made.add_argument("--config", required=True, help="TASK/NAME or a file: the model to begin")
    made.add_argument(
        "--source",
        help="a .ckpt file, the folder of a run, or a published model (default: the config's)",
    )
    made.add_argument(
        "--map",
        action="append",
        metavar="PART=PART",
        help="a part of the model and that of the source (none: stacks that are equally wide)",
    )
    made.add_argument("--out", type=Path, required=True, help="a new folder for the report")
    return made


def run(arguments: list[str]) -> None:
    """Build the model, carry the parts over, and print and write what was loaded, resized, left."""
    options, rest = parser().parse_known_args(arguments)
    if options.source is not None:
        rest.append(f"--model.transplant.source={options.source}")
    if options.map is not None:
        rest.append(f"--model.transplant.map={json.dumps(dict(map(pair, options.map)))}")
    check_new(options.out)
    # Here, because these read the command line's module, which reads this one.
    from tasks.cli.building import build_task
    from tasks.cli.configs import find_config
    from tasks.compare.measure import write_json

    task, _ = build_task(find_config(options.config), rest)
    if task.transplant is None:
        raise UserError("family transplant needs --source, or a config with model.transplant.")
    task.configure_model()
    report = task.transplanted
    assert report is not None
    write_json(options.out / "transplant.json", report.record())
    write_text(options.out / "transplant.md", report.text())
    print(report.text())
    print(f"The report is in {options.out}.")


def pair(given: str) -> tuple[str, str]:
    """The two names of PART=PART.

    Raises:
        UserError: no such pair.
    """
    ours, equals, theirs = given.partition("=")
    if not (ours and equals and theirs):
        raise UserError(f"--map {given}: give PART=PART, the model's and the source's.")
    return ours, theirs
