"""A profile as a page of Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from family.files import whole, write_text
from tasks.compare.plots import COLOURS, DASHES

Row = dict[str, Any]
HEADER = """# Cost as it grows

{device}, {threads} threads, torch {torch}; medians of {repeats} runs after warm-up, the configs in turns.
A length is in {unit}. A training step is the forward pass, the backward pass and the optimizer's step;
FLOPs are those of the two passes. Memory is the most that weights, the optimizer's state and the step's
own tensors take together. Decoding is greedy: as many tokens as the length, from one token or from a
source of that length.
"""
SHARES = """
## Where the time of a step goes

In %, of a step and the loading of its data one after the other. Parts of the model are ranges of the
profiler around their forward passes; an operation of the backward pass belongs to the part in which
autograd recorded it. "Other" are norms, residuals and all else within the model, "loss" what is
outside of it. The data's time is that of as many rows of the config's own loader, at their own length.
"""
EXPONENTS = """
## How time grows

The power of the {measure} with which the time of forward and backward pass and of decoding grows
(least squares of the logarithms): 1 is proportional, 2 quadratic, less a sign of costs that stay.
"""


def write_profile(results: dict[str, Any], folder: Path) -> None:
    """``profile.md``, ``profile.svg`` and ``profile.png``.

    Args:
        results: of :func:`tasks.compare.profile.profile_configs`.
    """
    write_text(folder / "profile.md", page(results))
    figure = picture(results)
    salted = matplotlib.rc_context({"svg.hashsalt": "profile"})
    with salted, whole(folder / "profile.svg") as new:
        figure.savefig(new, format="svg", metadata={"Date": None})
    with whole(folder / "profile.png") as new:
        figure.savefig(new, format="png", dpi=150)


# --- The page --------------------------------------------------------------------------------


def page(results: dict[str, Any]) -> str:
    """Tables of costs, exponents and shares."""
    rows = results["rows"]
    parts = [name for name in rows[0]["shares"] if any(row["shares"][name] for row in rows)]
    measure = "length" if results["unit"] == "tokens" else "number of pixels"
    costs = table(
        (
            "config",
            "length",
            "batch",
            "parameters",
            "FLOPs",
            "passes, ms",
            "step, ms",
            "memory, MB",
            "decoding, ms",
        ),
        [
            (
                *place(row),
                f"{row['parameters']:,}",
                f"{row['flops']:.3g}",
                milliseconds(row["pass_seconds"]),
                milliseconds(row["train_seconds"]),
                f"{row['train_bytes'] / 1e6:.1f}",
                milliseconds(row["decode_seconds"]),
            )
            for row in rows
        ],
    )
    powers = table(
        ("config", "batch", "passes", "decoding"),
        [
            (fit["config"], fit["batch_size"], power(fit["pass"]), power(fit["decode"]))
            for fit in results["exponents"]
        ],
    )
    shares = table(
        ("config", "length", "batch", *parts),
        [(*place(row), *(f"{100 * row['shares'][name]:.1f}" for name in parts)) for row in rows],
    )
    sections = (HEADER.format(**results), costs, EXPONENTS.format(measure=measure), powers, SHARES)
    return "\n".join((*sections, shares, "\n![](profile.svg)\n"))


def table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of Markdown; all columns but the first are flush right."""
    rule = ["---", *["---:"] * (len(names) - 1)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in (names, rule, *rows))


def place(row: Row) -> tuple[Any, ...]:
    return row["config"], row["length"], row["batch_size"]


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.3g}"


def power(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


# --- The picture -----------------------------------------------------------------------------


def picture(results: dict[str, Any]) -> Figure:
    """Time, memory and decoding against length on logarithmic axes, and the shares of the largest."""
    rows = results["rows"]
    figure = Figure((11, 7.5), layout="constrained")
    panels = figure.subplots(2, 2)
    axes = panels.flat
    unit = results["unit"]
    lines(axes[0], rows, lambda row: 1000 * row["train_seconds"], "a training step, ms", unit)
    lines(axes[1], rows, lambda row: row["train_bytes"] / 1e6, "its memory, MB", unit)
    decoding = [row for row in rows if row["decode_seconds"] is not None]
    if decoding:
        lines(axes[2], decoding, lambda row: 1000 * row["decode_seconds"], "decoding, ms", unit)
    else:
        axes[2].set_axis_off()
    bars(axes[3], rows)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def lines(
    axes: Axes, rows: Sequence[Row], value: Callable[[Row], float], name: str, unit: str
) -> None:
    """A colour for each config, a dash for each batch size."""
    configs = list(dict.fromkeys(row["config"] for row in rows))
    sizes = list(dict.fromkeys(row["batch_size"] for row in rows))
    for i, config in enumerate(configs):
        for j, size in enumerate(sizes):
            own = [row for row in rows if (row["config"], row["batch_size"]) == (config, size)]
            lengths = [row["length"] for row in own]
            style: dict[str, Any] = {
                "color": COLOURS[i % 8],
                "ls": DASHES[j % 4],
                "marker": "o",
                "ms": 4,
            }
            label = f"{config}, batch {size}"
            axes.plot(lengths, [value(row) for row in own], label=label, **style)
    ticks = sorted({row["length"] for row in rows})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"length, {unit}")
    axes.set_ylabel(name)
    axes.grid(alpha=0.2)


def bars(axes: Axes, rows: Sequence[Row]) -> None:
    """Shares of the step at the greatest length and batch size, a bar for each config."""
    last = rows[-1]
    shown = [
        row
        for row in rows
        if (row["length"], row["batch_size"]) == (last["length"], last["batch_size"])
    ]
    names = [row["config"] for row in shown]
    left = [0.0] * len(shown)
    parts = [name for name in last["shares"] if any(row["shares"][name] for row in shown)]
    for i, part in enumerate(parts):
        shares = [100 * row["shares"][part] for row in shown]
        hatch = "//" if i >= len(COLOURS) else None
        axes.barh(
            range(len(shown)), shares, left=left, label=part, color=COLOURS[i % 8], hatch=hatch
        )
        left = [before + share for before, share in zip(left, shares, strict=True)]
    axes.set_yticks(range(len(shown)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"% of a step, length {last['length']}, batch {last['batch_size']}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=5, frameon=False, fontsize=8)
