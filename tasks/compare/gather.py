"""Results from the folders of runs, wherever these ran: ``results.json``."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.compare import statistics
from tasks.compare.config import differences
from tasks.compare.measure import write_json
from tasks.compare.metrics import METRICS, Numbers
from tasks.compare.pairs import STATES, Bootstrap, Json, judged, whole
from tasks.compare.plan import Plan
from tasks.compare.provenance import provenance
from tasks.compare.runs import Run, best_rate, best_validation, first_runs

COSTS = (
    "trained",
    "step",
    "seconds",
    "examples",
    "tokens",
    "pictures",
    "flops",
    "flops_per_step",
    "memory_bytes",
    "step_per_second",
    "examples_per_second",
    "tokens_per_second",
    "pictures_per_second",
)
"""What each run measured of itself; the report gives the mean over the seeds that count."""
UNITS_SPENT = {"steps": "step"}
"""A unit of budgets -> what measures call it, where that is another name."""
ENDED = ("finished", "diverged", "failed")


def gather(plan: Plan, folder: Path) -> Json:
    """All that is known of a comparison, as plain values; also written to ``results.json``."""
    variants = {name: of_variant(plan, folder, name) for name in plan.variants}
    codes = [run["code"] for v in variants.values() for run in v["runs"] if run["code"]]
    results = {
        "name": plan.name,
        "metric": {"name": plan.metric[0], "mode": plan.metric[1]},
        "monitor": {"name": plan.monitor[0], "mode": plan.monitor[1]},
        "budget": asdict(plan.budget),
        "test": plan.test,
        "variants": variants,
        "pairs": judged(variants, plan.metric[1], bootstraps(plan, folder, variants)),
        "differences": differences({n: v.config for n, v in plan.variants.items()}),
        "disagreements": disagreements(variants, folder),
        "provenance": provenance(plan, folder, codes),
    }
    write_json(folder / "results.json", results)
    return results


# --- One variant -------------------------------------------------------------------------------


def of_variant(plan: Plan, folder: Path, name: str) -> Json:
    """A variant's runs with its best learning rate, all rates tried, the metric, what it cost."""
    variant, rate = plan.variants[name], best_rate(plan, folder, name)
    tried = [run for run in first_runs(plan, folder) if run.variant == name]
    tried = [run for run in tried if run.seed == variant.first_seed]
    runs = [Run(folder, name, rate, seed) for seed in variant.seeds] if rate is not None else []
    found = [of_run(plan, run) for run in runs]
    values = [run["value"] for run in found if run["state"] == "finished"]
    seeds = {state: [run["seed"] for run in found if run["state"] == state] for state in STATES}
    waiting = rate is None and not all(state_of(plan, run) in ENDED for run in tried)
    if rate is None:
        seeds["unfinished" if waiting else "no_rate"] = list(variant.seeds)
    every = list({run.name: run for run in [*tried, *runs]}.values())
    return {
        "parameters": variant.parameters,
        "matched": variant.matched,
        "learning_rate": rate,
        "choosing_seed": variant.choosing_seed,
        "learning_rates": {
            f"{run.rate:g}": (best_validation(plan, run) or {}).get(plan.monitor[0])
            for run in tried
        },
        "runs": found,
        "seeds": seeds,
        "values": values,
        "interval": asdict(statistics.interval(values)) if values else None,
        "costs": mean_costs([run["costs"] for run in found if run["state"] == "finished"]),
        "failures": reasons(plan, every, "failed"),
        "divergences": reasons(plan, every, "diverged"),
        "missing": [run["name"] for run in found if run["state"] == "unfinished"]
        or ([f"{name}: learning rates"] if waiting else []),
    }


def of_run(plan: Plan, run: Run) -> Json:
    """State, metrics at the best checkpoint, costs and curve of a run."""
    record, state, metrics = run.record() or {}, state_of(plan, run), metrics_of(plan, run)
    tested = run.record("test/metrics-test.json") if run.finished(plan.test) else None
    signatures = (run.record("metrics-fit.json") or {}).get("signatures", {})
    signatures |= (tested or {}).get("signatures", {})
    spent = record.get(UNITS_SPENT.get(plan.budget.unit, plan.budget.unit))
    return {
        "name": run.name,
        "seed": run.seed,
        "state": state,
        "value": metrics.get(plan.metric[0]) if state == "finished" else None,
        "metrics": {n: finite(v) for n, v in metrics.items()},
        "signatures": signatures,
        "best_step": (best_validation(plan, run) or {}).get("step"),
        "costs": {n: record[n] for n in COSTS if record.get(n) is not None},
        "spent": None if spent is None else spent / plan.budget.amount,
        "memory_kind": record.get("memory_kind"),
        "device": record.get("device"),
        "code": record.get("code"),
        "curve": [{n: finite(v) for n, v in p.items()} for p in record.get("curve", [])],
        "commands": run.commands(plan.test),
    }


def state_of(plan: Plan, run: Run) -> str:
    """What came of a run, see :data:`tasks.compare.pairs.STATES`."""
    if run.diverged(plan.monitor[0]):
        return "diverged"
    if not run.finished(plan.test):
        return "failed" if run.error.exists() else "unfinished"
    metrics = metrics_of(plan, run)
    if plan.metric[0] not in metrics:
        return "failed"
    return "finished" if finite(metrics[plan.metric[0]]) is not None else "diverged"


def metrics_of(plan: Plan, run: Run) -> dict[str, float | None]:
    """Those of the best checkpoint: as validated, and as tested once the run is finished."""
    best = best_validation(plan, run) or {}
    tested = run.record("test/metrics-test.json") if run.finished(plan.test) else None
    return {n: v for n, v in best.items() if n.startswith("val/")} | (tested or {}).get(
        "metrics", {}
    )


def reasons(plan: Plan, runs: list[Run], state: str) -> dict[str, str]:
    """Why runs failed or diverged, by their names."""
    other = {
        "failed": f"it has no {plan.metric[0]}.",
        "diverged": "its loss or its metric was not finite.",
    }
    return {
        run.name: run.error.read_text("utf-8").strip() if run.error.exists() else other[state]
        for run in runs
        if state_of(plan, run) == state
    }


def finite(value: float | None) -> float | None:
    """A number, or None for what JSON has no word for."""
    return value if value is not None and math.isfinite(value) else None


def mean_costs(costs: list[dict[str, float]]) -> dict[str, float]:
    names = [name for name in COSTS if all(name in cost for cost in costs)] if costs else []
    return {name: float(np.mean([cost[name] for cost in costs])) for name in names}


# --- Two variants ------------------------------------------------------------------------------


def bootstraps(plan: Plan, folder: Path, variants: dict[str, Json]) -> Bootstrap:
    """The paired bootstrap of two variants, by their names."""
    examples = {name: over_examples(plan, folder, v) for name, v in variants.items()}

    def of_pair(a: str, b: str) -> dict[str, float] | None:
        one, two = examples[a], examples[b]
        if one is None or two is None or one.lines != two.lines:
            return None
        return statistics.bootstrap(one.scores, two.scores)

    return of_pair


class Resampled(NamedTuple):
    """A variant's metric, the mean over seeds, on resampled test sets; and the examples of these."""

    lines: list[Any]
    scores: Numbers


def over_examples(plan: Plan, folder: Path, variant: Json) -> Resampled | None:
    """None where a metric is no matter of examples, or a seed did not finish or does not tell them."""
    direction, _, name = plan.metric[0].removeprefix("test/").rpartition("/")
    metric = METRICS.get(name)
    runs = [run["name"] for run in variant["runs"]]
    if metric is None or not whole(variant):
        return None
    scores, lines = [], []
    for run in runs:
        rows = [row for row in outcomes(folder / run) if direction in ("", row.get("direction"))]
        scores.append(metric(rows))
        lines.append([example(row) for row in rows])
    told = [score for score in scores if score is not None]
    if len(told) < len(runs) or any(one != lines[0] for one in lines):
        return None
    return Resampled(lines[0], statistics.resampled(told, len(lines[0])))


def example(row: Json) -> list[Any]:
    """What tells an example from others: its place, and where that is a mere number what it holds."""
    return [row["line"], row.get("direction"), row.get("tokens"), row.get("pixels_true")]


def outcomes(run: Path) -> list[Json]:
    """What came of each test example, in the order of the test split."""
    file = run / "test" / "outcomes.jsonl"
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def disagreements(variants: dict[str, Json], folder: Path, most: int = 8) -> list[Json]:
    """Test examples that variants answer differently, each side's first seed that counts.

    Those that some variants get right and others wrong stand first; then, spread over the set.
    """
    sides: dict[str, dict[tuple[int, str], Json]] = {}
    for name, variant in variants.items():
        done = [run for run in variant["runs"] if run["state"] == "finished"]
        listed = outcomes(folder / done[0]["name"]) if done else []
        if listed and {"made", "true"} <= listed[0].keys():
            sides[name] = {(row["line"], row.get("direction", "")): row for row in listed}
    if len(sides) < 2:
        return []
    shared = sorted(set.intersection(*(set(rows) for rows in sides.values())))
    found = []
    for line in shared:
        rows = {name: side[line] for name, side in sides.items()}
        if len({row["made"] for row in rows.values()}) > 1:
            first = next(iter(rows.values()))
            made = {name: row["made"] for name, row in rows.items()}
            right = {name: row["made"] == row["true"] for name, row in rows.items()}
            found.append(
                {
                    "line": line[0],
                    "source": first.get("source", ""),
                    "true": first["true"],
                    "made": made,
                    "right": right,
                }
            )
    telling = [row for row in found if len(set(row["right"].values())) > 1] or found
    return telling[:: max(1, len(telling) // most)][:most]
