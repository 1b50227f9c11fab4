"""A comparison that is killed and started again ends as one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.cli import main


def metrics(results):
    return {
        run["name"]: (run["metrics"], run["best_step"], run["value"])
        for variant in results["variants"].values()
        for run in variant["runs"]
    }


@pytest.mark.slow
def test_a_killed_comparison_goes_on_and_repeats_nothing(comparison, results):
    variants = {"a": {"model.init_args.model.init_args.config": {"dropout": 0.2}}}
    changes = {"variants": variants, "test": False, "budget": {"steps": 100}, "validations": 10}
    main(comparison("whole", **changes, seeds=[1]))

    arguments = comparison("killed", **changes)
    command = [sys.executable, "-m", "tasks.cli", *arguments]
    runner = subprocess.Popen(command, start_new_session=True, env={**os.environ})
    first, second = (Path(f"killed/a/lr-0.003/seed-{seed}") for seed in (0, 1))
    last, deadline = second / "checkpoints/last.ckpt", time.monotonic() + 150
    try:
        while not last.exists() and runner.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()
    assert last.exists()
    assert not (second / "metrics-fit.json").exists(), "it was too late to kill it"
    done = (first / "measure.json").stat().st_mtime_ns

    main(arguments)
    assert (first / "measure.json").stat().st_mtime_ns == done
    assert "--ckpt_path" in second.with_suffix(".log").read_text("utf-8")  # it went on
    ((name, run),) = metrics(results("whole")).items()
    assert metrics(results("killed"))[name] == run
