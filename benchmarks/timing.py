"""Time several things in one process, in turns, so that a drifting machine cannot favour one; say whether they compute
the same, how much of what the processor can they reach, and how much memory they take."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

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


def share_of_peak(
    rows: dict[str, Any],
    step: Callable[[], Any],
    peaks: dict[str, float],
    precision: dict[str, str],
) -> None:
    """Add to each row what share of the measured peak of products it reaches.

    Args:
        step: what counts the operations, once for all rows, which compute the same.
        peaks: operations a second by precision, see :func:`product_peak`.
        precision: of each row; float32 where it is not named.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    for name, row in rows.items():
        peak = peaks[precision.get(name, "float32")]
        row["share_of_peak"] = round(counter.get_total_flops() / row["seconds"] / peak, 3)
        print(f"  {name:28} {row['share_of_peak']:9.1%} of what products alone reach")


def product_peak(dtype: torch.dtype, size: int = 2048, rounds: int = 7) -> float:
    """Operations a second of a square product, the best of some."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return (
        2 * size**3 / min(medians({"product": lambda: a @ b}, 1)["product"] for _ in range(rounds))
    )


def peak_memory(step: Callable[[], Any]) -> int:
    """Bytes that a step takes at most, beyond what is held before it; by the profiler's events on the CPU."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def same(what: str, ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> float:
    """How far two outputs are apart, as a share of the larger's greatest value.

    Raises:
        SystemExit: over the tolerance: they do not compute the same, and times do not compare.
    """
    apart = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    print(f"\n{what}: the same to {apart:.1e}")
    if not apart <= tolerance:
        raise SystemExit(f"{what}: {apart:.1e} apart, over {tolerance:.0e}.")
    return apart


def run(doc: str, parts: dict[str, Callable[..., Any]], rounds: int, **given: str) -> None:
    """The command line of a benchmark: run its parts, or some, and save what they return.

    Args:
        parts: each is told the values of the options that are ``given``, and how many rounds.
        rounds: where nobody says.
        given: further options, with their help.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name, what in given.items():
        parser.add_argument(f"--{name}", help=what)
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", help="a JSON file for the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore")
    values = [getattr(options, name) for name in given]
    save(options.out, {name: parts[name](*values, options.rounds) for name in options.only})


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
    model: nn.Module, loss_of: Callable[[], Tensor], lr: float = 1e-4, half: bool = False
) -> Callable[[], None]:
    """Forward, backward and an AdamW step, the same for every competitor; ``half`` multiplies in bfloat16."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, fused=True)
    device = parameters[0].device.type

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = loss_of()
        loss.backward()
        optimizer.step()

    return step
