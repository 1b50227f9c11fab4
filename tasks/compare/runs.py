"""The runs of a comparison: each an ordinary ``family fit`` in its own folder, done once."""

from __future__ import annotations

import json
import math
import queue
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from family.files import write_text
from tasks.compare.measure import FILE
from tasks.compare.plan import Plan, run_config
from tasks.compare.process import LIVE, call, locked
from tasks.errors import UserError
from tasks.runs.checkpoints import read_checkpoint

TRIAL_STEPS = 40
"""Steps that tell how many tokens, FLOPs or seconds a step takes, where the budget is in these."""


@dataclass(frozen=True)
class Run:
    """One training of one variant.

    Args:
        folder: of the comparison.
    """

    folder: Path
    variant: str
    rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant}/lr-{self.rate:g}/seed-{self.seed}"

    @property
    def place(self) -> Path:
        """Where ``family fit`` writes."""
        return self.folder / self.name

    @property
    def config(self) -> Path:
        return self.place.parent / "config.yaml"

    @property
    def log(self) -> Path:
        """What the run's commands printed."""
        return self.place.with_suffix(".log")

    @property
    def error(self) -> Path:
        """Why the run failed; not there if it did not."""
        return self.place.with_suffix(".error")

    def record(self, name: str = FILE) -> dict[str, Any] | None:
        """A JSON file that the run wrote, once it is whole."""
        try:
            return json.loads((self.place / name).read_text("utf-8"))
        except (OSError, json.JSONDecodeError):
            return None

    def trained(self) -> bool:
        return self.record("metrics-fit.json") is not None and self.record() is not None

    def diverged(self, monitor: str) -> bool:
        """Whether the run ended in numbers that are not finite, whatever it had reached before.

        Args:
            monitor: the metric that chooses checkpoints.
        """
        record = self.record() or {}
        if not record or not (self.trained() or self.error.exists()):
            return False
        ends = {name: value for point in record.get("curve", []) for name, value in point.items()}
        if "val/loss" in ends:
            ends.pop("train/loss", None)  # of a batch: validation has the last word
        told = [ends[name] for name in (monitor, "val/loss", "train/loss") if name in ends]
        return bool(record.get("not_finite")) or not all(math.isfinite(x) for x in told)

    def finished(self, test: bool) -> bool:
        return self.trained() and (not test or self.record("test/metrics-test.json") is not None)

    def commands(self, test: bool, resume: Path | None = None) -> list[list[str]]:
        """The commands that are the run: the training, and the test of its best checkpoint."""
        common = ["--config", str(self.config), "--seed_everything", str(self.seed)]
        fit = ["fit", *common, "--run_folder", str(self.place)]
        fit += ["--ckpt_path", str(resume)] if resume else []
        tested = ["test", *common, "--ckpt_path", str(self.place)]
        tested += ["--run_folder", str(self.place / "test")]
        return [fit, tested] if test else [fit]


# --- Which runs there are ----------------------------------------------------------------------


def first_runs(plan: Plan, folder: Path) -> list[Run]:
    """What can run at once: each rate with the seed that chooses; all seeds where there is one rate."""
    runs = [
        (number, Run(folder, variant.name, rate, seed))
        for variant in plan.variants.values()
        for rate in variant.learning_rates
        for number, seed in enumerate(
            variant.seeds if len(variant.learning_rates) == 1 else [variant.first_seed]
        )
    ]
    # Seed by seed, so that variants can be seen side by side before all is done.
    return [run for _, run in sorted(runs, key=lambda numbered: numbered[0])]


def chosen_runs(plan: Plan, folder: Path, variant: str) -> list[Run] | None:
    """All seeds with a variant's best rate; None while one of its rates has not been tried."""
    one = plan.variants[variant]
    rate = best_rate(plan, folder, variant)
    return None if rate is None else [Run(folder, variant, rate, seed) for seed in one.seeds]


def best_rate(plan: Plan, folder: Path, variant: str) -> float | None:
    """The learning rate that did best on validation, with the seed that chooses.

    A rate that failed or diverged does not count; None while one is untried, or where none is left.
    """
    one = plan.variants[variant]
    if len(one.learning_rates) == 1:
        return one.learning_rates[0]
    tried = {rate: Run(folder, variant, rate, one.first_seed) for rate in one.learning_rates}
    if not all(run.trained() or run.error.exists() for run in tried.values()):
        return None
    name, mode = plan.monitor
    scores = {r: best_validation(plan, run) for r, run in tried.items() if not run.diverged(name)}
    known = {rate: score[name] for rate, score in scores.items() if score}
    best = max if mode == "max" else min
    return best(known, key=lambda rate: known[rate]) if known else None


def best_validation(plan: Plan, run: Run) -> dict[str, float] | None:
    """The point of a finished run's curve that its best checkpoint was saved at."""
    name, mode = plan.monitor
    curve = (run.record() or {}).get("curve", []) if run.trained() else []
    points = [p for p in curve if name in p and math.isfinite(p[name])]
    best = max if mode == "max" else min
    return best(points, key=lambda point: point[name]) if points else None


# --- One run -----------------------------------------------------------------------------------


def do(run: Run, plan: Plan, device: int | None = None) -> bool:
    """Do what is left of a run; returns whether it is finished, else ``run.error`` says why not.

    Args:
        device: the GPU that the run sees; None is all of them.
    """
    with locked(run.place.with_suffix(".lock")) as lock:
        if run.finished(plan.test):
            return True
        run.error.unlink(missing_ok=True)
        try:
            write_config(run, plan, device)
            if not run.trained():
                call(run.commands(plan.test, resume=set_aside(run))[0], run.log, device, lock)
                clear_parts(run)
            if plan.test:
                shutil.rmtree(run.place / "test", ignore_errors=True)
                call(run.commands(plan.test)[1], run.log, device, lock)
        except UserError as error:
            write_text(run.error, f"{error}\n")
            return False
        return True


def write_config(run: Run, plan: Plan, device: int | None) -> None:
    """The config that all seeds of a rate share; its steps come of the budget."""
    with locked(run.config.with_suffix(".lock")):
        if not run.config.exists():
            steps = steps_of(run, plan, device)
            text = yaml.safe_dump(run_config(plan, run.variant, run.rate, steps), sort_keys=False)
            write_text(run.config, text)


def steps_of(run: Run, plan: Plan, device: int | None) -> int:
    """The steps in which the budget is spent, so that the schedule of the learning rate ends there.

    Raises:
        UserError: a short trial failed, or did not tell.
    """
    unit, amount = plan.budget.unit, plan.budget.amount
    if unit == "steps":
        return int(amount)
    variant = plan.variants[run.variant]
    rate, seed = variant.learning_rates[0], variant.seeds[0]
    trial = Run(run.folder / "trials", variant.name, rate, seed)
    with locked(trial.place.with_suffix(".lock")) as lock:
        if not trial.trained():
            shutil.rmtree(trial.place, ignore_errors=True)
            config = run_config(plan, variant.name, rate, TRIAL_STEPS)
            config["trainer"] |= {"limit_val_batches": 0, "num_sanity_val_steps": 0}
            write_text(trial.config, yaml.safe_dump(config, sort_keys=False))
            call(trial.commands(test=False)[0], trial.log, device, lock)
    record = trial.record() or {}
    if unit == "seconds":
        per_step = 1 / record["step_per_second"] if record.get("step_per_second") else 0.0
    else:
        per_step = (record.get(unit) or 0) / record["step"]
    if not per_step:
        why = record.get("flops_error") or f"its batches hold no {unit}"
        raise UserError(f"budget.{unit}: {run.variant} has none to count: {why}.")
    return max(1, math.ceil(amount / per_step))


def set_aside(run: Run) -> Path | None:
    """Move what an interrupted run left out of the way; its last checkpoint, if it can be read."""
    if not run.place.exists():
        return None
    number = 1
    while (aside := run.place.with_suffix(f".part{number}")).exists():
        number += 1
    run.place.rename(aside)
    last = aside / "checkpoints" / "last.ckpt"
    try:
        read_checkpoint(last, weights=False)
    except (UserError, OSError):
        return None
    return last


def clear_parts(run: Run) -> None:
    """The checkpoints of interrupted parts have served."""
    for part in run.place.parent.glob(f"{run.place.name}.part*/checkpoints"):
        shutil.rmtree(part, ignore_errors=True)


# --- Many runs ---------------------------------------------------------------------------------


def do_all(runs: list[Run], plan: Plan, devices: int | None, say: Any = print) -> None:
    """Do runs one after another, or side by side on so many GPUs."""
    free: queue.Queue[int | None] = queue.Queue()
    for device in [None] if devices is None else range(devices):
        free.put(device)

    def one(run: Run) -> None:
        if run.finished(plan.test):
            return
        device = free.get()
        try:
            say(f"{run.name} ...", flush=True)
            done = do(run, plan, device)
            score = best_validation(plan, run)
            reached = f"{plan.monitor[0]} {score[plan.monitor[0]]:.4g}" if score else "no result"
            why = "" if done else f"failed: {run.error.read_text('utf-8').strip()}"
            say(f"{run.name}: {why or reached}", flush=True)
        finally:
            free.put(device)

    with ThreadPoolExecutor(devices or 1) as pool:
        try:
            for future in [pool.submit(one, run) for run in runs]:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(LIVE):
                process.terminate()
            raise
