"""Curves as SVG that follows the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

AXES = {"step": "steps", "flops": "FLOPs", "seconds": "seconds of training"}
"""What curves are drawn against."""
COLOURS = ("#3b7dd8", "#e07b39", "#3a9d5d", "#b65fc2", "#c9a227", "#d1495b", "#2aa5a0", "#8a8d91")
"""Told apart on white and on black, and by most who see few colours."""
MARKERS = "os^DvPX*"
DASHES = ("-", "--", ":", "-.")
"""Of every eight variants another."""
INK = "#123456"
"""Stands for the colour of the page's text."""


def curves(results: dict[str, Any], across: str) -> str:
    """The monitored metric against "step", "flops" or "seconds"; "" without data.

    Every seed is a thin line, their mean a thick one. The worst quarter of all points may lie
    outside, but no curve's end: where curves begin they tell little apart.

    Args:
        results: of :func:`tasks.compare.gather.gather`.
    """
    name, best = results["monitor"]["name"], results["monitor"]["mode"]
    columns = 1 if max(map(len, results["variants"]), default=0) > 22 else 2

    def draw(axes: Axes) -> bool:
        ends: list[float] = []
        every: list[float] = []
        for i, (variant, found) in enumerate(results["variants"].items()):
            colour = COLOURS[i % len(COLOURS)]
            seeds = [points_of(run, across, name) for run in found["runs"]]
            seeds = [points for points in seeds if len(points)]
            for points in seeds:
                axes.plot(*points.T, c=colour, lw=0.8, alpha=0.6)
                every += points[:, 1].tolist()
                ends.append(points[-1, 1])
            if seeds:
                shared = min(map(len, seeds))
                mean = np.mean([points[:shared] for points in seeds], axis=0)
                marker, gap = MARKERS[i % len(MARKERS)], max(1, shared // 8)
                style: Any = {"marker": marker, "markevery": gap, "ms": 4.5, "lw": 1.8}
                style["ls"] = DASHES[i // len(COLOURS) % len(DASHES)]
                axes.plot(*mean.T, c=colour, label=variant, **style)
        if ends:
            low, high = min(every), max(every)
            if best == "max":
                low = min([*ends, np.quantile(every, 0.25)])
            else:
                high = max([*ends, np.quantile(every, 0.75)])
            room = 0.04 * (high - low) or 0.1
            axes.set_ylim(low - room, high + room)
            key: Any = {"loc": "outside lower center", "ncols": columns, "labelcolor": INK}
            axes.get_figure().legend(frameon=False, **key)  # type: ignore[union-attr]
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel(AXES[across])
        axes.set_ylabel(name)
        return bool(ends)

    rows = -(-len(results["variants"]) // columns)
    return svg(draw, f"curves-{across}", (4.8, 3.0 + 0.2 * rows))


def points_of(run: dict[str, Any], across: str, name: str) -> np.ndarray:
    """``(points, 2)`` of a run's curve, where both are known."""
    pairs = [(point.get(across), point.get(name)) for point in run["curve"]]
    return np.array([pair for pair in pairs if None not in pair], dtype=float)


def dots(results: dict[str, Any]) -> str:
    """Every seed's value of the metric, and below the mean with its 95 % interval; "" without data."""
    shown = [(n, v) for n, v in results["variants"].items() if v["values"]]

    def draw(axes: Axes) -> bool:
        for i, (name, found) in enumerate(shown):
            place, whole = list(results["variants"]).index(name), found["interval"]
            style: Any = {"c": COLOURS[place % len(COLOURS)]}
            seeds = found["values"]
            axes.plot(seeds, [i - 0.2] * len(seeds), "o", ms=4.5, alpha=0.7, **style)
            low, high = whole["low"], whole["high"]
            reach = None if low is None else [[whole["mean"] - low], [high - whole["mean"]]]
            style["fmt"] = MARKERS[place % len(MARKERS)]
            axes.errorbar(whole["mean"], i + 0.1, xerr=reach, ms=6, capsize=4, **style)
        axes.set_yticks(range(len(shown)), [name for name, _ in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel(results["metric"]["name"])
        return bool(shown)

    return svg(draw, "dots", (4.8, 0.8 + 0.45 * max(1, len(shown))))


def svg(draw: Callable[[Axes], bool], name: str, size: tuple[float, float]) -> str:
    """An SVG element on a clear ground, in the colour of the text around it."""
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.2,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "grid.color"), INK),
        **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        if not draw(figure.subplots()):
            return ""
        made = io.StringIO()
        figure.savefig(made, format="svg", transparent=True, metadata={"Date": None})
    text = made.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # Ids must not meet those of other plots on a page.
    return re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
