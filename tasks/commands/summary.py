"""``family summary MODEL [MODEL ...]``: parts, shapes, parameters and operations, as a table; with ``--svg FILE``
the models drawn side by side, so that what differs stands out.

A MODEL is a config (TASK/NAME or a file), a run, a published model, or a size of the package such as gpt2.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tasks.commands.examples import command_parser
from tasks.errors import UserError, user_errors

MOST = 6
"""Models side by side."""


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "summary",
        __doc__,
        "family summary gpt2 bert_base --svg both.svg",
        "family summary translation/shapes",
        more="Operations are of one forward pass of one example, a product and a sum being two; its shapes are printed.",
    )
    made.add_argument("models", nargs="+", metavar="MODEL", help="up to six")
    made.add_argument("--svg", type=Path, metavar="FILE", help="draw them")
    return made


def run(arguments: list[str]) -> None:
    """Print a table of each model, and draw all of them."""
    options = parser().parse_args(arguments)
    if len(options.models) > MOST:
        raise UserError(
            f"{len(options.models)} models are too many side by side: give up to {MOST}."
        )
    if options.svg is not None and (options.svg.is_dir() or not options.svg.parent.is_dir()):
        raise UserError(f"--svg {options.svg} must be a file in a folder that is there.")
    # Here, so that --help is quick.
    from rich.console import Console

    from family.files import write_text
    from family.look.diagram import diagram
    from tasks.compare.summary import summary_of

    found = []
    for name in options.models:
        with user_errors():
            found.append(summary_of(model_of(name), name))
    console = Console()
    for one in found:
        console.print(table_of(one))
    if options.svg is not None:
        write_text(options.svg, diagram([one.outline for one in found]))
        print(f"The diagram is {options.svg}.")


def model_of(name: str) -> Any:
    """The model of a config, of a size of the package, or of a source.

    Raises:
        UserError: there is none of this name, or its config needs data that are not there.
    """
    import family
    from tasks.cli.configs import config_files, find_config

    if Path(name).suffix in (".yaml", ".yml") or name in config_files():
        return of_config(find_config(name))
    builder = getattr(family, name) if name in dir(family) else None
    if builder is not None and callable(builder) and not isinstance(builder, type):
        return of_builder(name, builder)
    from tasks.runs.checkpoints import is_published, load_checkpoint, open_published

    try:
        # A published model needs no tokenizer here.
        return open_published(name) if is_published(name) else load_checkpoint(name).model
    except UserError as error:
        near = config_hint(name)
        raise UserError(f"{str(error).rstrip('.')}; nor is it a config of ours.{near}") from None


def config_hint(name: str) -> str:
    from tasks.cli.configs import config_files
    from tasks.errors import closest

    return closest(name, config_files())


def of_config(path: str) -> Any:
    """The model that ``family fit`` would begin with."""
    from tasks.cli.building import Dry, quietly

    with quietly():
        made = Dry(path, ("--trainer.accelerator=cpu", "--trainer.precision=32-true"))
        task: Any = made.model
        return task.model or task.build_model(dict(made.datamodule.model_arguments))


def of_builder(name: str, builder: Any) -> Any:
    """A published size, whose weights are never held.

    Raises:
        UserError: a function that builds none without more arguments.
    """
    import torch

    try:
        with torch.device("meta"):
            made = builder() if takes_none(builder) else builder(1000)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{name} builds no model by itself: {error}.") from None
    if not isinstance(made, torch.nn.Module):
        raise UserError(f"{name} is no size of a model.")
    return made


def takes_none(builder: Any) -> bool:
    """Whether all arguments of a function have a value; else the first is a number of classes."""
    import inspect

    parameters = inspect.signature(builder).parameters.values()
    named = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return all(p.default is not p.empty for p in named)


def table_of(one: Any) -> Any:
    """A summary as a table of rich's."""
    from rich.table import Table

    from tasks.compare.summary import amount

    outline, times = one.outline, " \N{MULTIPLICATION SIGN} "
    total = f"{outline.parameters:,} parameters"
    if one.learned != outline.parameters:
        total += f", {one.learned:,} of which learn"
    read = ", ".join(f"{name} {times.join(map(str, shape))}" for name, shape in one.inputs.items())
    caption = f"{total}; {amount(one.flops)} operations forward, of {read}" if read else total
    title = f"{outline.name} ({outline.member})" if outline.name != outline.member else outline.name
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    for name in ("part", "class", "gives"):
        table.add_column(name, overflow="fold")
    for name in ("parameters", "share", "operations"):
        table.add_column(name, justify="right")
    for row in one.rows:
        gives = "" if row.gives is None else times.join(map(str, row.gives))
        share = f"{row.parameters / max(1, outline.parameters):.1%}" if row.parameters else ""
        style = "dim" if row.name.startswith(" ") else ""
        count = f"{row.parameters:,}" if row.parameters else ""
        table.add_row(row.name, row.kind, gives, count, share, amount(row.flops), style=style)
    return table
