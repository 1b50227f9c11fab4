"""``family runs [FOLDER]``: the runs of a folder as a table; ``family runs show RUN``: one of them, with its
options, metrics and learning curves."""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from tasks.commands.examples import command_parser
from tasks.errors import UserError
from tasks.runs.overview import Curve, RunFolder, flat_options, read_run, runs_in

BARS = "▁▂▃▄▅▆▇█"
PLACE = Path("runs")
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
COLOURS = {"running": "cyan", "finished": "green", "stopped": "yellow", "failed": "red"}
OWN = ("trainer", "optimizer", "lr_scheduler")
"""Of these options only those are shown that say how long and how a run trained."""
TOLD = (
    *(
        "max_epochs",
        "max_steps",
        "max_time",
        "val_check_interval",
        "precision",
        "gradient_clip_val",
    ),
    *("accumulate_grad_batches", "devices", "strategy"),
)


def run(arguments: list[str]) -> None:
    """Print the table, or one run."""
    if arguments[:1] == ["show"]:
        return show(arguments[1:])
    parser = command_parser("runs", __doc__, "family runs", "family runs show runs/RUN")
    parser.add_argument(
        "folder", nargs="?", type=Path, default=PLACE, help="where the runs are (default: runs)"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    found = runs_in(options.folder)
    if options.format == "json":
        print(json.dumps([described(one, options.folder) for one in found], indent=2))
    elif found:
        print_table(found, options.folder)
    else:
        print(f"{options.folder} holds no runs: family fit --config TASK/NAME makes one.")


def described(one: RunFolder, place: Path) -> dict[str, Any]:
    """A run as plain values; ``best`` is the metric that chose its checkpoint."""
    best = one.best()
    return {
        "run": name_of(one, place),
        "folder": str(one.folder),
        "task": one.task,
        "config": config_of(one),
        "state": one.state["state"],
        "step": one.step,
        "metric": best and best[0],
        "best": best and best[1],
        "changed": round(one.changed, 1),
        **({"error": one.state["error"]} if one.state.get("error") else {}),
    }


def print_table(found: list[RunFolder], place: Path) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "task", "config", "state"):
        table.add_column(name, overflow="fold")
    for name in ("steps", "best", "age"):
        table.add_column(name, justify="right", no_wrap=name != "best")
    for one in found:
        row = described(one, place)
        best = "" if row["best"] is None else f"{row['metric']} {row['best']:.4g}"
        colour = COLOURS.get(row["state"], "white")
        table.add_row(
            row["run"],
            row["task"],
            row["config"],
            f"[{colour}]{row['state']}[/]",
            f"{row['step']:,}",
            best,
            since(row["changed"]),
        )
    console().print(table)


def console() -> Any:
    """Without a terminal as wide as it takes: other programs read lines."""
    from rich.console import Console

    made = Console(highlight=False, markup=True)
    if not made.is_terminal:
        made = Console(highlight=False, width=max(160, shutil.get_terminal_size().columns))
    return made


def name_of(one: RunFolder, place: Path) -> str:
    inside = one.folder.relative_to(place).as_posix()
    return one.folder.resolve().name if inside == "." else inside


def config_of(one: RunFolder) -> str:
    """The config that a run was called with; "" where it does not say."""
    words = list(one.state.get("command") or [])
    for i, word in enumerate(words):
        if word.startswith("--config="):
            return str(word.partition("=")[2])
        if word in ("--config", "-c") and i + 1 < len(words):
            return str(words[i + 1])
    return ""


def since(moment: float) -> str:
    """How long ago, in its largest unit."""
    seconds = max(0.0, time.time() - moment)
    size, unit = next(((s, u) for s, u in UNITS if seconds >= s), UNITS[-1])
    return f"{int(seconds // size)} {unit}"


# --- One run ---


def show(arguments: list[str]) -> None:
    """Print a run's options, metrics and curves, and draw the curves."""
    parser = command_parser("runs show", __doc__, "family runs show runs/RUN --out curves.png")
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument(
        "--out", type=Path, help="the picture of the curves (default: curves.png in the run)"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    options = parser.parse_args(arguments)
    if not options.run.is_dir():
        raise UserError(f"there is no run {options.run}.")
    one = read_run(options.run)
    out = options.out or options.run / "curves.png"
    if out.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UserError(f"--out {out} is no name of a picture, such as curves.png.")
    if options.format == "json":
        whole = described(one, options.run) | {
            "options": shown_options(one),
            "metrics": one.metrics,
        }
        print(json.dumps(whole | {"curves": one.curves}, indent=2, default=str))
    else:
        print_run(one)
    drawn = {name: points for name, points in one.curves.items() if len(points) > 1}
    if drawn:
        draw(drawn, out, f"{one.task} · {one.folder.resolve().name}")
        if options.format == "text":
            print(f"\nThe curves are in {out}.")


def shown_options(one: RunFolder) -> dict[str, Any]:
    """Those of model and data, and of the trainer what tells how it trained; of a stack what is not as in
    any other."""
    from family import TransformerConfig

    stack = {each.name: each.default for each in fields(TransformerConfig)}
    found = {}
    for name, value in flat_options(one.config):
        group, _, rest = name.partition(".")
        place, _, last = name.rpartition(".")
        usual = place.endswith("config") and (stack.get(last) == value or value == [])
        if not usual and (group not in OWN or rest in TOLD):
            found[name] = value
    return found


def print_run(one: RunFolder) -> None:
    from rich.table import Table

    best = one.best()
    print(f"{one.folder}: {one.task}, {one.state['state']} at step {one.step:,}")
    if one.state.get("error"):
        print(f"  {one.state['error']}")
    if best:
        print(f"best {best[0]}: {best[1]:.6g}")
    if one.state.get("command"):
        print(f"command: {' '.join(one.state['command'])}")
    print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("metric", "last", "curve"):
        table.add_column(name, justify="right" if name == "last" else "left")
    for name in sorted({*one.metrics, *one.curves}):
        points = one.curves.get(name, [])
        last = one.metrics.get(name, points[-1][1] if points else math.nan)
        table.add_row(name, f"{last:.5g}", sparkline(points))
    console().print(table)
    print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("option")
    table.add_column("value", overflow="fold")
    for name, value in shown_options(one).items():
        table.add_row(name, str(value).replace("[", r"\["))
    console().print(table)


def sparkline(points: Curve, width: int = 32) -> str:
    """A curve in a line of characters, as many as there are points, at most ``width``; what is not finite is
    a gap."""
    if len(points) < 2:
        return ""
    size = len(points) / min(width, len(points))
    parts = [
        [value for _, value in points[int(i * size) : max(int((i + 1) * size), int(i * size) + 1)]]
        for i in range(min(width, len(points)))
    ]
    means = [sum(part) / len(part) for part in parts]
    finite = [value for value in means if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    top = len(BARS) - 1
    return "".join(
        BARS[round((value - low) / (high - low) * top) if high > low else top // 2]
        if math.isfinite(value)
        else " "
        for value in means
    )


def draw(curves: dict[str, Curve], out: Path, title: str) -> None:
    """A panel for each metric, training beside validation, against steps."""
    from matplotlib.figure import Figure

    panels: dict[str, list[str]] = {}
    for name in sorted(curves):
        panels.setdefault(name.partition("/")[2] or name, []).append(name)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3 * rows + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for i, (panel, names) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for name in names:
            steps, values = zip(*curves[name], strict=True)
            training = name.startswith("train/")
            colour = "#8a8d91" if training else "#3b7dd8"
            marker = "" if training or len(steps) > 40 else "o"
            label = name.partition("/")[0] if "/" in name else name
            axes.plot(steps, values, c=colour, marker=marker, ms=3.5, lw=1.4, label=label)
        axes.set_title(panel, fontsize=10)
        axes.set_xlabel("steps", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(names) > 1:
            axes.legend(fontsize=8, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)
