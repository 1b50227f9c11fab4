"""The report of a comparison: ``report.html``, self-contained, and ``report.md``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from family.files import write_text
from tasks.compare.pairs import Json, listed
from tasks.compare.plots import AXES, curves, dots
from tasks.compare.process import shown
from tasks.compare.statistics import chance

MANY = 3
"""Sentences that say the same are a list then."""
NEAR = 0.05
"""How far from its budget a run may end before it is worth a sentence."""
TEMPLATES = Path(__file__).parent / "templates"


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
        write_text(folder / f"{name}.svg", plot.replace("currentColor", "#808080"))
    for kind in ("md", "html"):
        page = (
            environment(kind)
            .get_template(f"report.{kind}")
            .render(
                results=results,
                plots={name: Markup(plot) for name, plot in plots.items()},
                costs=cost_rows(results),
                rates=tried_rates(results),
                choice=choice_of_rates(results),
                edge=at_the_edge(results),
                far=far_from_budget(results),
                first=next(iter(results["variants"]), ""),
                against=against_first(results),
                **told_apart(results["pairs"]),
                budget=f"{figure(results['budget']['amount'])} {unit}",
            )
        )
        write_text(folder / f"report.{kind}", page)
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
    made.filters |= {"figure": figure, "within": within, "signed": signed}
    made.filters |= {"mean": mean_of, "seeds": each_seed}
    made.filters |= {"cell": cell, "command": shown, "claim": claim, "chance": bare}
    return made


def tried_rates(results: Json) -> list[str]:
    """All learning rates that a variant was tried with; none where nobody had a choice."""
    tried = [variant["learning_rates"] for variant in results["variants"].values()]
    if all(len(rates) < 2 for rates in tried):
        return []
    return sorted({rate for rates in tried for rate in rates}, key=float)


def at_the_edge(results: Json) -> str:
    """A sentence on the variants whose best learning rate is the least or the largest of several."""
    found = []
    for name, variant in results["variants"].items():
        rates = sorted(variant["learning_rates"], key=float)
        if variant["learning_rate"] is not None and len(rates) > 1:
            ends = {rates[0]: "least", rates[-1]: "largest"}
            end = ends.get(f"{variant['learning_rate']:g}")
            if end is not None:
                found.append(f"{name}'s is the {end}")
    return f"Of those tried, {' and '.join(found)}: others may serve better." if found else ""


def against_first(results: Json) -> dict[str, str]:
    """How each variant that has results differs from the first one, and whether significantly."""
    first = next(iter(results["variants"]), None)
    said = {}
    for pair in results["pairs"]:
        if pair["a"] == first:
            if pair["significant"]:
                word = "better" if pair["better"] == pair["b"] else "worse"
            elif pair["difference"] is None:
                word = "no verdict"
            else:
                one = pair["p_seeds_adjusted"] is None
                word = "one seed" if one else "not significant"
            known = pair["difference"] is not None
            said[pair["b"]] = f"{signed(-pair['difference'])}, {word}" if known else word
    return said


def told_apart(pairs: list[Json]) -> dict[str, list[Json]]:
    """``pairs`` whose verdicts stand as sentences, the significant ones first; where these are many,
    those without a difference are only listed, as ``equals``."""
    equals = [pair for pair in pairs if "no significant difference" in pair["verdict"]]
    equals = equals if len(equals) > MANY else []
    rest = [pair for pair in pairs if pair not in equals]
    return {"pairs": sorted(rest, key=lambda pair: not pair["significant"]), "equals": equals}


def claim(verdict: str) -> tuple[str, str]:
    """A verdict, and the p values that it rests on."""
    said, found, why = verdict.rpartition(" (over ")
    return (said, f"(over {why}") if found else (verdict, "")


def bare(p: float | None) -> str:
    """A p value under a heading that says so."""
    return "–" if p is None else chance(p).removeprefix("p ").removeprefix("= ")


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
    learn = [v["costs"].get("trained") for v in variants]
    if any(n and n != v["parameters"] for n, v in zip(learn, variants, strict=True)):
        rows.append(("of them trained", [figure(n) for n in learn]))
    for name, (words, unit) in COSTS.items():
        values = [v["costs"].get(name) for v in variants]
        if any(values):
            rows.append((words, ["–" if x is None else figure(x / unit) for x in values]))
    spent = [[run["spent"] for run in v["runs"] if run["state"] == "finished"] for v in variants]
    if any(any(one) for one in spent):
        rows.append(
            ("of its budget, each seed", [", ".join(map(share, one)) or "–" for one in spent])
        )
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
    half = interval["high"] - interval["mean"]
    if not half:
        return f"{figure(interval['mean'])} ± 0"
    digits = max(0, 1 - math.floor(math.log10(half)))  # two that are sure to mean something
    return f"{interval['mean']:,.{digits}f} ± {half:,.{digits}f}"


def mean_of(variant: Json) -> str:
    """A variant's mean; of which seeds, where not all count."""
    counted, planned = variant["seeds"]["finished"], sum(map(len, variant["seeds"].values()))
    said = within(variant["interval"])
    some = counted and len(counted) < planned and planned > 1
    return f"{said}, of {listed(counted)} alone" if some else said


def each_seed(variant: Json) -> str:
    """Every seed with what came of it: ``0: 0.91, 1: diverged``."""
    told = {run["seed"]: run["value"] for run in variant["runs"]}
    words = {"no_rate": "no learning rate", "unfinished": "not finished"}
    came = {
        seed: words.get(state, state)
        for state, seeds in variant["seeds"].items()
        for seed in seeds
        if state != "finished"
    }
    came |= {seed: figure(value) for seed, value in told.items() if value is not None}
    return ", ".join(f"{seed}: {came[seed]}" for seed in sorted(came))


def share(part: float | None) -> str:
    """Of a budget."""
    return "–" if part is None else f"{100 * part:.3g} %"


def far_from_budget(results: Json) -> list[str]:
    """Runs that spent clearly less, or more, than the others may, and how much."""
    return [
        f"{run['name']} spent {share(run['spent'])}"
        for variant in results["variants"].values()
        for run in variant["runs"]
        if run["state"] == "finished" and run["spent"] is not None and abs(run["spent"] - 1) > NEAR
    ]


def choice_of_rates(results: Json) -> str:
    """A sentence on the seeds by which learning rates were chosen; "" where there was no choice."""
    chose = [v for v in results["variants"].values() if len(v["learning_rates"]) > 1]
    if not chose:
        return ""
    own = {v["choosing_seed"] for v in chose}
    monitor = results["monitor"]["name"]
    if None in own:
        return (
            f"{monitor} of each variant's first seed, by which its best rate was chosen; all its seeds "
            "then ran with that. The first seed counts in the mean as well, which makes the mean of a "
            "variant with several rates a little too good."
        )
    return (
        f"{monitor} with {listed(sorted(own))}, by which each variant's best rate was chosen and which "
        "is in no mean; the seeds of the result then ran with that rate."
    )


def signed(value: float | None) -> str:
    """A difference."""
    if value is None:
        return "–"
    return f"{value:+.3g}".replace("-", "−") if value else "0"


def cell(value: Any) -> str:
    """A value of a config, so that it fits a table."""
    if value is None:
        return "–"
    text = str(value).replace("|", "/").replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "..."
