"""Time several things in one process, in turns, so that a drifting machine cannot favour one."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Steps = dict[str, Callable[[], Any]]


def medians(steps: Steps, rounds: int = 12, warmup: int = 2) -> dict[str, float]:
    """Median seconds of each step; every round runs each of them once."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(warmup + rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_number >= warmup:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def report(title: str, seconds: dict[str, float], ours: str = "ours") -> dict[str, Any]:
    """Print each time and its ratio to ours; return both."""
    print(f"\n{title}")
    rows = {}
    for name, value in seconds.items():
        rows[name] = {"seconds": round(value, 5), "times_ours": round(value / seconds[ours], 3)}
        print(f"  {name:28} {value * 1000:9.2f} ms   {value / seconds[ours]:6.3f} of ours")
    return rows


def save(path: str | None, results: dict[str, Any]) -> None:
    """Results with the machine and versions they were measured on."""
    if path is None:
        return
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
    }
    Path(path).write_text(json.dumps({"machine": machine, **results}, indent=2) + "\n")


def processor() -> str:
    listed = Path("/proc/cpuinfo")
    names = re.search(r"model name\s*: (.*)", listed.read_text()) if listed.exists() else None
    return names[1] if names else platform.processor() or platform.machine()


def train_step(
    model: torch.nn.Module, loss_of: Callable[[], torch.Tensor], lr: float = 1e-4
) -> Callable[[], None]:
    """Forward, backward and an AdamW step, the same for every competitor."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of().backward()
        optimizer.step()

    return step
