"""Curves as SVG that follows the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

AXES = {"step": "steps", "flops": "FLOPs", "seconds": "seconds of training"}
"""What curves are drawn against."""
COLOURS = ("#3b7dd8", "#e07b39", "#3a9d5d", "#b65fc2", "#c9a227", "#d1495b", "#2aa5a0", "#8a8d91")
"""Told apart on white and on black, and by most who see few colours."""
DASHES = ("-", "--", ":", "-.")
INK = "#123456"
"""Stands for the colour of the page's text."""


def curves(results: dict[str, Any], across: str) -> str:
    """The monitored metric of every seed against "step", "flops" or "seconds"; "" without data.

    Args:
        results: of :func:`tasks.compare.gather.gather`.
    """
    name = results["monitor"]["name"]

    def draw(axes: Axes) -> bool:
        drawn = False
        for i, (variant, found) in enumerate(results["variants"].items()):
            label: str | None = variant
            for run in found["runs"]:
                points = [p for p in run["curve"] if None not in (p.get(name), p.get(across))]
                if points:
                    x, y = [p[across] for p in points], [p[name] for p in points]
                    colour, dash = COLOURS[i % 8], DASHES[i // 8 % 4]
                    axes.plot(x, y, dash, c=colour, marker=".", lw=1.3, alpha=0.8, label=label)
                    drawn, label = True, None
        axes.set_xlabel(AXES[across])
        axes.set_ylabel(name)
        if drawn:
            axes.legend(frameon=False, labelcolor=INK)
        return drawn

    return svg(draw, f"curves-{across}", (5.2, 3.4))


def dots(results: dict[str, Any]) -> str:
    """Every seed's value of the metric, with the mean and its 95 % interval; "" without data."""
    shown = [(n, v) for n, v in results["variants"].items() if v["values"]]

    def draw(axes: Axes) -> bool:
        for i, (name, found) in enumerate(shown):
            colour, whole = COLOURS[list(results["variants"]).index(name) % 8], found["interval"]
            axes.plot(found["values"], [i] * len(found["values"]), "o", ms=4, alpha=0.6, c=colour)
            low, high = whole["low"], whole["high"]
            reach = None if low is None else [[whole["mean"] - low], [high - whole["mean"]]]
            axes.errorbar(whole["mean"], i, xerr=reach, fmt="D", ms=6, capsize=4, c=colour)
        axes.set_yticks(range(len(shown)), [name for name, _ in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel(results["metric"]["name"])
        return bool(shown)

    return svg(draw, "dots", (6.4, 0.8 + 0.45 * max(1, len(shown))))


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
