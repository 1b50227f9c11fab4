"""``family hand_on RUN --out FOLDER``: a finished run as a folder for others: weights, tokenizer, labels, the
config, and a model card. Where its architecture is a published one, transformers reads it too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from family.files import write_text
from tasks.commands.examples import command_parser
from tasks.errors import UserError

OWN = "own"


def run(arguments: list[str]) -> None:
    """Write the folder, load it again, and compare the two on a random batch."""
    parser = command_parser(
        "hand_on",
        __doc__,
        "family hand_on runs/RUN --out mine",
        "family hand_on runs/RUN --out mine --layout own",
    )
    parser.add_argument(
        "run", type=Path, help="the folder of a run, whose best checkpoint is taken"
    )
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument(
        "--layout",
        help=f"a published format, or {OWN!r} (default: the first published one that has all that the "
        "model computes, else our own)",
    )
    options = parser.parse_args(arguments)
    layout = hand_on(options.run, options.out, options.layout)
    reads = (
        "transformers and family.from_pretrained read it"
        if layout
        else "family.from_pretrained reads it"
    )
    print(f"{options.out} holds {options.run} as {layout or 'our own layout'}: {reads}.")
    print(f"Read {options.out / 'README.md'}, its model card, and add a licence.")


def hand_on(folder: Path, out: Path, layout: str | None = None) -> str:
    """Write what others need of a run.

    Args:
        out: must not exist, or be empty.
        layout: None looks for a published format.

    Returns:
        The name of the published format; "" is ours.

    Raises:
        UserError: no run, one without a checkpoint, or a layout that cannot hold it.
    """
    from tasks.commands.card import Result, card, shared
    from tasks.commands.export import load, remove
    from tasks.runs.checkpoints import find_checkpoint, read_checkpoint
    from tasks.runs.overview import metrics_of, read_run

    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of a run.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} exists and is not empty: choose another folder.")
    one, file = read_run(folder), find_checkpoint(str(folder))
    metrics = read_checkpoint(file, weights=False).get("metrics") or one.metrics
    model, there = load(str(file)), out.exists()
    try:
        found = written(model, out, layout)
        signatures = metrics_of(folder)[1].get("signatures") or {}
        write_text(out / "README.md", card(one, model, Result(found, metrics, signatures)))
        import yaml

        text = yaml.safe_dump(shared(one.config), sort_keys=False, allow_unicode=True)
        write_text(out / "training_config.yaml", text)
    except BaseException:
        remove(out, there)
        raise
    return found


def written(model: Any, out: Path, layout: str | None) -> str:
    """Write weights and what goes with them; the name of the published format, or "" for ours.

    Raises:
        UserError: a layout that cannot hold the model, or other answers when it is loaded again.
    """
    from tasks.commands.export import TOLERANCE, export, remove
    from tasks.runs.export import difference

    there, said = out.exists(), ""
    wanted: list[str | None] = [None] if layout == OWN else [layout]
    if layout is None:
        wanted = [*suitable(model), None]
    for name in wanted:
        try:
            again = export(model, "safetensors", name, out)
            worst = difference(model, again)
            # Published layouts may order a sum otherwise.
            if worst <= (1e-5 if name else TOLERANCE["safetensors"]):
                return name or ""
            said = f"its answers differ by {worst:.1e} of the largest"
        except UserError as error:
            said = str(error)
        remove(out, there)
    raise UserError(
        said if layout in (None, OWN) else f"--layout {layout}: {said.rpartition(': ')[2]}"
    )


def suitable(model: Any) -> list[str]:
    """The published formats of a model's class whose config has room for all that it computes."""
    from family.pretrained.configs import to_config
    from family.pretrained.formats import FORMATS
    from family.pretrained.text import two_of_ours

    if two_of_ours(getattr(model, "tokenizer", None)):
        return []  # they have room for one
    found = []
    for name, layout in FORMATS.items():
        if layout.files[0] != "config.json":
            continue  # of no library that others have
        try:
            to_config(layout, model)
        except (ValueError, AttributeError, KeyError, TypeError):
            continue
        found.append(name)
    return found


def is_handed_on(folder: Path) -> bool:
    """Whether a folder is one that this command wrote."""
    try:
        json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return (folder / "README.md").is_file()
