"""One model for everything against specialists of the same kind: the built-in world's six tasks, by several seeds.

    family fit --config image_tokenizing/shapes --run_folder RUNS/tokens
    python examples/unified.py RUNS [--seeds 0 1 2] [--steps 960] [--jobs 1] [--out examples/unified]

Each of the following is trained and tested in RUNS, where it is not there yet; figures and a table of what is there
are written into the folder of --out.

- ``omni``: all six tasks, so many steps.
- ``small-TASK``: one task each with a sixth of the parameters, as many steps: together as many parameters and as many
  FLOPs as omni.
- ``same-TASK``: one task each, of omni's size, a sixth of the steps: together as many FLOPs, and as many rows of each
  task.
- ``without-TASK``: five tasks, five sixths of the steps: as many rows of each of them.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from seeds import family

from tasks.compare.statistics import interval, welch
from tasks.data.unified import TASKS

HERE = Path(__file__).parent / "unified"
METRICS = {
    "translate": ("BLEU", 1.0),
    "caption": ("every claim right, %", 100.0),
    "answer": ("right answers, %", 100.0),
    "draw": ("every claim drawn, %", 100.0),
    "classify": ("right classes, %", 100.0),
    "detect": ("mAP at 0.5, %", 100.0),
}
"""Of each task what it is measured by, and what it is multiplied with."""
LOGGED = {
    "translate": "bleu",
    "caption": "true",
    "answer": "accuracy",
    "draw": "true",
    "classify": "accuracy",
    "detect": "map_50",
}
TESTED = 150_000
"""``data.examples`` of the test: 500 rows of each task."""
FULL = {"dim": 128, "depth": 4, "heads": 4, "ffn_dim": 344}
SMALL = {"dim": 40, "depth": 4, "heads": 4, "ffn_dim": 112}
"""906 and 153 thousand parameters, the vocabulary's among them."""


class Run(NamedTuple):
    """One training: its name, its tasks, its stack, its steps and its seed."""

    name: str
    tasks: tuple[str, ...]
    stack: dict[str, int]
    steps: int
    seed: int

    def folder(self, root: Path) -> Path:
        return root / self.name / f"seed-{self.seed}"


def plan(seeds: list[int], steps: int) -> list[Run]:
    """All runs, the first seed's first."""
    found = []
    for seed in seeds:
        found.append(Run("omni", TASKS, FULL, steps, seed))
        for task in TASKS:
            found.append(Run(f"small-{task}", (task,), SMALL, steps, seed))
            found.append(Run(f"same-{task}", (task,), FULL, steps // len(TASKS), seed))
    for seed in seeds:
        for task in TASKS:
            rest = tuple(one for one in TASKS if one != task)
            some = steps * len(rest) // len(TASKS)
            found.append(Run(f"without-{task}", rest, FULL, some, seed))
    return found


def train(run: Run, root: Path) -> None:
    """Train and test, where that is not done yet.

    Raises:
        SystemExit: either failed.
    """
    folder = run.folder(root)
    tasks = ["--data.tasks", json.dumps(list(run.tasks))]
    if not (folder / "metrics-fit.json").exists():
        stack = [
            part
            for name, value in run.stack.items()
            for part in (f"--model.model.config.{name}", str(value))
        ]
        family(
            folder,
            *("fit", "--config", "unified/shapes", "--run_folder", str(folder), *stack, *tasks),
            *("--model.image_tokenizer", str(root / "tokens")),
            *("--seed_everything", str(run.seed), "--trainer.max_steps", str(run.steps)),
            *("--trainer.val_check_interval", str(run.steps)),
        )
    if not (folder / "test" / "metrics-test.json").exists():
        options = ["--data.examples", str(TESTED), "--run_folder", str(folder / "test")]
        family(folder, "test", str(folder), *options)


# --- What was found ------------------------------------------------------------------------------


def scores(runs: list[Run], root: Path) -> dict[str, dict[str, list[float]]]:
    """By kind of run ("omni", "small", "same", "without draw"), and then by task, the values of all seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        file = run.folder(root) / "test" / "metrics-test.json"
        if not file.exists():
            continue
        metrics = json.loads(file.read_text("utf-8"))["metrics"]
        kind, _, left_out = run.name.partition("-")
        name = f"without {left_out}" if kind == "without" else kind
        for task in run.tasks:
            _, scale = METRICS[task]
            value = metrics.get(f"test/{task}/{LOGGED[task]}")
            if value is not None:
                found.setdefault(name, {}).setdefault(task, []).append(scale * value)
    return found


def cell(values: list[float]) -> str:
    """Mean and half of the 95 % interval over seeds."""
    found = interval(values)
    spread = "" if found.low is None else f" ± {found.mean - found.low:.1f}"
    return f"{found.mean:.1f}{spread}"


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """In Markdown: a row a task, a column a kind of run."""
    kinds = [kind for kind in ("omni", "small", "same") if kind in found]
    titles = {
        "omni": "one model",
        "small": "six of a sixth of its size",
        "same": "six of its size, a sixth of the steps each",
    }
    lines = [
        f"| task | {' | '.join(titles[kind] for kind in kinds)} | p against small | p against same |",
        "| --- " * (len(kinds) + 3) + "|",
    ]
    for task in TASKS:
        row = [cell(found[kind][task]) if task in found[kind] else "" for kind in kinds]
        chances = [chance(found, kind, task) for kind in ("small", "same")]
        lines.append(f"| {task}: {METRICS[task][0]} | {' | '.join([*row, *chances])} |")
    return "\n".join(lines)


def chance(found: dict[str, dict[str, list[float]]], kind: str, task: str) -> str:
    """p of Welch's test over seeds, of one model against another kind."""
    ours, theirs = found.get("omni", {}).get(task, []), found.get(kind, {}).get(task, [])
    p = welch(ours, theirs) if min(len(ours), len(theirs)) > 1 else None
    return "" if p is None else f"{p:.3f}"


def transfer(found: dict[str, dict[str, list[float]]]) -> str:
    """In Markdown: what each task gains or loses where another is left out of training, against all six; of
    several seeds the mean, and each seed's in brackets."""
    kinds = [f"without {task}" for task in TASKS if f"without {task}" in found]
    if not kinds or "omni" not in found:
        return ""
    lines = [f"| | all six | {' | '.join(kinds)} |", "| --- " * (len(kinds) + 2) + "|"]
    for task in TASKS:
        cells = [points(changes(found, kind, task)) for kind in kinds]
        lines.append(f"| {task} | {mean(found['omni'][task]):.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def changes(found: dict[str, dict[str, list[float]]], kind: str, task: str) -> list[float]:
    """Of a task's score, seed by seed, from all six to those that a kind of run has; none if it has it not."""
    both = zip(found[kind].get(task, []), found["omni"][task], strict=False)
    return [theirs - all_six for theirs, all_six in both]


def points(values: list[float]) -> str:
    """Their mean, and in brackets each of several."""
    each = f" ({', '.join(f'{one:+.1f}' for one in values)})" if len(values) > 1 else ""
    return f"{mean(values):+.1f}{each}" if values else ""


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def figure(found: dict[str, dict[str, list[float]]], file: Path) -> None:
    """Bars of the means and a dot for each seed, a panel a task."""
    kinds = [kind for kind in ("omni", "small", "same") if kind in found]
    names = {"omni": "one model", "small": "small\nspecialist", "same": "specialist\nof its size"}
    colours = {"omni": "#2c6fbb", "small": "#d1495b", "same": "#3d8b40"}
    picture, panels = plt.subplots(2, 3, figsize=(10, 5.6), layout="constrained")
    for axes, task in zip(panels.flat, TASKS, strict=True):
        for place, kind in enumerate(kinds):
            values = found[kind].get(task, [])
            if values:
                axes.bar(place, mean(values), 0.6, color=colours[kind], alpha=0.6)
                axes.plot([place] * len(values), values, ".", color=colours[kind])
        axes.set_xticks(range(len(kinds)), [names[kind] for kind in kinds], fontsize=8)
        axes.set_title(f"{task}: {METRICS[task][0]}", fontsize=10)
        axes.set_ylim(0, 105)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    picture.savefig(file, dpi=110)


def taught(found: dict[str, dict[str, list[float]]], file: Path) -> None:
    """Which task teaches which: what each (a row) gains or loses where one (a column) is left out."""
    left = [task for task in TASKS if f"without {task}" in found]
    rows = [[changes(found, f"without {other}", task) for other in left] for task in TASKS]
    values = [[mean(one) if one else float("nan") for one in row] for row in rows]
    picture, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    shown = axes.imshow(values, cmap="RdBu", vmin=-25, vmax=25)
    for i, row in enumerate(values):
        for j, one in enumerate(row):
            text = f"{one:+.1f}" if rows[i][j] else "-"
            colour = "white" if abs(one) > 15 else "black"
            axes.text(j, i, text, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(left)), left)
    axes.set_yticks(range(len(TASKS)), TASKS)
    axes.set_xlabel("left out of training")
    axes.set_ylabel("score of")
    picture.colorbar(shown, label="points, against all six", extend="both")
    picture.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="where they train; holds the image tokenizer")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=960, help="of the one model, of 480 rows")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--only", nargs="*", default=[], help="names of runs, such as omni")
    parser.add_argument("--out", type=Path, default=HERE, help="of results.json and the pictures")
    options = parser.parse_args()
    runs = plan(options.seeds, options.steps)
    wanted = [run for run in runs if not options.only or run.name in options.only]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda run: train(run, options.runs), wanted))
    found = scores(runs, options.runs)
    result: dict[str, Any] = {
        "steps": options.steps,
        "seeds": options.seeds,
        "stacks": {"full": FULL, "small": SMALL},
        "rows_tested": TESTED // 300,
        "scores": found,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    if {"small", "same"} & found.keys():
        figure(found, options.out / "unified.png")
    if "omni" in found and any(kind.startswith("without") for kind in found):
        taught(found, options.out / "left_out.png")
    print(table(found), transfer(found), sep="\n\n")


if __name__ == "__main__":
    main()
