"""A figure with its interval: one config trained and tested with several seeds.

    python examples/seeds.py RESULTS/minilm.json test/accuracy --config text_classification/sst2_minilm \
        --data.root SST2
    python examples/seeds.py RESULTS

The first trains and tests once for each seed, by ``family fit`` and ``family test`` with all the options
that follow, and writes the metric's values, their mean and the 95 % interval of Student's t; ``--also`` tests
the same runs on other data. The second prints the table of a folder of such files.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from tasks.compare.statistics import interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="a JSON file to write, or a folder of them to show")
    parser.add_argument("metric", nargs="?", help="such as test/accuracy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="seeds side by side")
    parser.add_argument("--runs", type=Path, default=Path("runs/seeds"), help="where they train")
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=OPTIONS", help="tested with these too"
    )
    options, rest = parser.parse_known_args()
    if options.metric is None:
        print(table(options.out))
        return
    others = dict(one.split("=", 1) for one in options.also)
    folder = options.runs / options.out.stem

    def one(seed: int) -> dict[str, Any]:
        return trained(folder / f"seed-{seed}", seed, rest, others)

    with ThreadPoolExecutor(options.jobs) as pool:
        done = list(pool.map(one, options.seeds))
    command = ["python", "examples/seeds.py", str(options.out), *sys.argv[2:]]
    result = {
        "metric": options.metric,
        **summary([run["scores"][""][options.metric] for run in done]),
        "also": {n: summary([run["scores"][n][options.metric] for run in done]) for n in others},
        "seeds": options.seeds,
        "scores": [run["scores"] for run in done],
        "minutes": [round(run["minutes"], 2) for run in done],
        "command": shlex.join(command),
        "device": device(),
        "torch": torch.__version__,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def trained(folder: Path, seed: int, rest: list[str], others: dict[str, str]) -> dict[str, Any]:
    """One run: its test scores by what it was tested on, "" being its own data, and minutes of training."""
    if not (folder / "metrics-fit.json").exists():
        family(folder, "fit", *rest, "--seed_everything", str(seed), "--run_folder", str(folder))
    minutes = json.loads((folder / "metrics-fit.json").read_text("utf-8"))["seconds"] / 60
    scores = {}
    for name, extra in {"": "", **others}.items():
        place = folder / f"test-{name}" if name else folder / "test"
        tested = [*rest, *shlex.split(extra), "--ckpt_path", str(folder)]
        if not (place / "metrics-test.json").exists():
            family(folder, "test", *tested, "--run_folder", str(place))
        scores[name] = json.loads((place / "metrics-test.json").read_text("utf-8"))["metrics"]
    return {"scores": scores, "minutes": minutes}


def family(folder: Path, *arguments: str) -> None:
    """A command of ``family``, its output in a file beside the run."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    with log.open("a", encoding="utf-8") as file:
        call = [sys.executable, "-m", "tasks.cli", *arguments]
        if subprocess.run(call, stdout=file, stderr=subprocess.STDOUT).returncode:
            sys.exit(f"{shlex.join(call)} failed: see {log}.")


def summary(values: list[float]) -> dict[str, Any]:
    found = interval(values)
    return {"mean": found.mean, "low": found.low, "high": found.high, "values": values}


def device() -> str:
    """The GPU, or else the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    listed = Path("/proc/cpuinfo")
    names = re.search(r"model name\s*: (.*)", listed.read_text()) if listed.exists() else None
    return f"{names[1] if names else platform.processor()}, {torch.get_num_threads()} threads"


def table(folder: Path) -> str:
    """All results of a folder in Markdown."""
    lines = ["| run | metric | mean | 95 % interval | seeds | minutes |", "| --- " * 6 + "|"]
    for file in sorted(folder.glob("*.json")):
        found = json.loads(file.read_text("utf-8"))
        if "values" not in found:
            continue
        minutes = f"{sum(found['minutes']) / len(found['minutes']):.1f}"
        for name, row in {"": found, **found["also"]}.items():
            said = f"{file.stem}, {name}" if name else file.stem
            spread = "" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}"
            cells = [said, found["metric"], f"{row['mean']:.4g}", spread, str(len(row["values"]))]
            lines.append(f"| {' | '.join([*cells, minutes])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
