"""``family plan --config NAME --gpus N --memory GIB``: what a config would take on so many devices."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from typing import Any

from tasks.commands.examples import command_parser
from tasks.errors import UserError


def parser() -> argparse.ArgumentParser:
    made = command_parser(
        "plan",
        __doc__,
        "family plan --config gpt/shapes --gpus 64 --memory 80 --tflops 400 --bandwidth 50",
        "family plan --config gpt/shapes --trainer.precision bf16-mixed",
        more="Other options are those of family fit. Nothing is trained: a step is followed without the memory "
        "that it would take.",
    )
    made.add_argument("--config", action="append", required=True, help="TASK/NAME or a file")
    made.add_argument("--gpus", type=int, default=1, help="processes, one a device")
    made.add_argument("--memory", type=float, help="GiB of each device")
    made.add_argument(
        "--tflops", type=float, help="that a device reaches; measured here by a product if left out"
    )
    made.add_argument("--bandwidth", type=float, help="GB a second that a device sends")
    made.add_argument("--json", action="store_true", help="the plan as JSON")
    return made


def run(arguments: list[str]) -> None:
    options, rest = parser().parse_known_args(arguments)
    for name in ("gpus", "memory", "tflops", "bandwidth"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            raise UserError(f"--{name} must be above 0, not {value}.")
    plan = planned(options, rest)
    if options.json:
        print(json.dumps(plan, indent=2))
    else:
        show(plan, options)


def planned(options: argparse.Namespace, rest: list[str]) -> dict[str, Any]:
    """The plan as plain values."""
    # Here, so that --help is quick.
    from tasks.cli.building import quietly
    from tasks.cli.configs import find_config
    from tasks.compare.capacity import GIB, shares
    from tasks.compare.footprint import footprint

    first, *more = (str(find_config(name)) for name in options.config)
    rest = [*(f"--config={path}" for path in more), *rest]
    rate = 1e12 * options.tflops if options.tflops else product_rate()
    bandwidth = 1e9 * options.bandwidth if options.bandwidth else None
    rows: list[dict[str, Any]] = []
    with quietly():
        ways = [(way, footprint(first, rest, way)) for way in (False, True)]
        if ways[0][1] is None:
            ways = [(False, footprint(first, rest))]
    found = ways[0][1]
    assert found is not None
    for way, one in ways:
        for share in shares(one, options.gpus, way, rate, bandwidth) if one is not None else ():
            row = {**dataclasses.asdict(share), "peak": share.peak}
            row["fits"] = None if options.memory is None else share.peak <= options.memory * GIB
            rows.append(row)
    rows.sort(key=lambda row: (row["strategy"] == "fsdp2", row["checkpointing"]))
    return {
        "step": dataclasses.asdict(found),
        "gpus": options.gpus,
        "flops_per_second": rate,
        "measured": options.tflops is None,
        "ways": rows,
        "choice": next((i for i, row in enumerate(rows) if row["fits"]), None),
    }


def product_rate(size: int = 1024, times: int = 5) -> float:
    """FLOPs a second of a matrix product on this machine, in float32."""
    import torch

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    a = torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        float((a @ a)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def show(plan: dict[str, Any], options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    step = plan["step"]
    console = Console(width=max(120, Console().width))  # a row is of no use in pieces
    reads = f"{step['rows']} examples"
    if step["tokens"]:
        reads += f", {step['tokens']:,} tokens"
    console.print(
        f"{step['parameters']:,} parameters, {step['trained']:,} of them learn. A step on one device reads "
        f"{reads} and takes {step['flops']:.3g} FLOPs; {plan['gpus']} of them read "
        f"{plan['gpus'] * step['rows']:,} examples.",
        highlight=False,
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    names = (
        "strategy",
        "checkpointing",
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "peak",
    )
    for name in (*names, "sent", "seconds", ""):
        left = name in names[:2]
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in plan["ways"]:
        sizes = [readable(row[name]) for name in names[2:]]
        fits = {None: "", True: "fits", False: "too large"}[row["fits"]]
        time_ = f"{row['seconds']:.3g}"
        if row["sending"]:
            time_ += f" + {row['sending']:.3g} sending"
        kept = "yes" if row["checkpointing"] else "no"
        table.add_row(row["strategy"], kept, *sizes, readable(row["sent"]), time_, fits)
    console.print(table)
    rate = f"{plan['flops_per_second'] / 1e12:.3g} TFLOP/s"
    console.print(
        f"Bytes are of one device, seconds of one step at {rate}"
        + (", a product's rate on this machine: at best." if plan["measured"] else "."),
        highlight=False,
    )
    if options.memory is not None:
        console.print(advice(plan, options.memory), highlight=False)


def advice(plan: dict[str, Any], memory: float) -> str:
    if plan["choice"] is None:
        least = min(row["peak"] for row in plan["ways"])
        return (
            f"Nothing fits {memory:g} GiB, the least is {readable(least)}: give a smaller batch, with "
            "trainer.accumulate_grad_batches for what it lacks, bf16-mixed, or more devices."
        )
    row = plan["ways"][plan["choice"]]
    given = [] if plan["gpus"] == 1 else [f"--trainer.strategy {row['strategy']}"]
    if row["checkpointing"]:
        given.append("activation_checkpointing: true in the model's config")
    return f"Take {' and '.join(given)}." if given else "It fits as it is."


def readable(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:,.3g} GiB"
