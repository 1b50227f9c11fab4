"""The report of a comparison: ``report.html``, self-contained, and ``report.md``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.compare.plots import AXES, curves, dots
from tasks.compare.process import shown
from tasks.compare.statistics import chance

TEMPLATES = Path(__file__).parent / "templates"
Json = dict[str, Any]


def write_report(results: Json, folder: Path) -> Path:
    """Write both reports, and the plots of the second.

    Args:
        results: of :func:`tasks.compare.gather.gather`.

    Returns:
        The path of ``report.html``.
    """
    unit = results["budget"]["unit"].replace("flops", "FLOPs")
    plots = {name: plot for name, plot in draw(results).items() if plot}
    for name, plot in plots.items():
        # By itself a plot has no page whose colour it could take: a grey that both grounds bear.
        (folder / f"{name}.svg").write_text(plot.replace("currentColor", "#808080"), "utf-8")
    for kind in ("md", "html"):
        page = (
            environment(kind)
            .get_template(f"report.{kind}")
            .render(
                results=results,
                plots={name: Markup(plot) for name, plot in plots.items()},
                costs=cost_rows(results),
                rates=any(len(v["learning_rates"]) > 1 for v in results["variants"].values()),
                budget=f"{figure(results['budget']['amount'])} {unit}",
            )
        )
        (folder / f"report.{kind}").write_text(page, encoding="utf-8")
    return folder / "report.html"


def draw(results: Json) -> dict[str, str]:
    return {"values": dots(results)} | {f"against-{axis}": curves(results, axis) for axis in AXES}


def environment(kind: str) -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=kind == "html",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"figure": figure, "within": within, "cell": cell, "command": shown}
    made.filters["chance"] = lambda p: "–" if p is None else chance(p).removeprefix("p ")
    return made


COSTS = {
    "step": ("steps", 1),
    "flops_per_step": ("FLOPs a step", 1),
    "flops": ("FLOPs in all", 1),
    "tokens": ("tokens", 1),
    "pictures": ("pictures", 1),
    "seconds": ("seconds of training", 1),
    "step_per_second": ("steps a second", 1),
    "tokens_per_second": ("tokens a second", 1),
    "pictures_per_second": ("pictures a second", 1),
    "memory_bytes": ("peak memory, MiB", 1 << 20),
}
"""What the report shows of the costs: in words, and the unit."""


def cost_rows(results: Json) -> list[tuple[str, list[str]]]:
    """The rows of the table of costs, those that say something of one variant at least."""
    variants = results["variants"].values()
    rows = [("parameters", [figure(v["parameters"]) for v in variants])]
    for name, (words, unit) in COSTS.items():
        values = [v["costs"].get(name) for v in variants]
        if any(values):
            rows.append((words, ["–" if x is None else figure(x / unit) for x in values]))
    return rows


def figure(value: float | None) -> str:
    """A number as one reads it: 1,234,567; 0.0123; 1.23e+12."""
    if value is None:
        return "–"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    if abs(value) >= 1e9 or abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def within(interval: Json | None) -> str:
    """A mean with half the width of its interval."""
    if interval is None:
        return "–"
    if interval["high"] is None:
        return f"{figure(interval['mean'])} (one seed)"
    return f"{figure(interval['mean'])} ± {figure(interval['high'] - interval['mean'])}"


def cell(value: Any) -> str:
    """A value of a config, so that it fits a table."""
    if value is None:
        return "–"
    text = str(value).replace("|", "/").replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "..."
