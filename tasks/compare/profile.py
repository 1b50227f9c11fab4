"""What a training step and decoding cost as sequences and batches grow."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from tasks.compare.cases import TEXT_LENGTHS, Case, Variant, make_case, open_variant, own_lengths
from tasks.compare.flops import counted_flops
from tasks.compare.shares import PARTS, profiled
from tasks.errors import UserError

WARMUP = 2
"""Steps that are not timed: the first ones allocate, and compile."""
PROFILED = 3
"""Steps under the profiler."""


def profile_configs(
    configs: Sequence[tuple[str, str]],
    options: Sequence[str],
    lengths: Sequence[int] | None,
    batch_sizes: Sequence[int],
    repeats: int = 7,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure every config at every length and batch size, the configs in turns.

    Args:
        configs: name and path of each.
        options: laid over each of them.
        lengths: tokens of a text (of source and target each), or pixels of a picture's side; None is
            64, 128 and 256 tokens, or 1, 2 and 3 times the side of the first config.
        repeats: timed runs, whose median counts.

    Returns:
        ``unit``, ``threads``, ``device``, ``rows`` (one a config, length and batch size) and
        ``exponents``, plain values.

    Raises:
        UserError: configs that do not go together, or a length that a model does not take.
    """
    longest = max(lengths or TEXT_LENGTHS)
    variants = [open_variant(name, path, options, longest) for name, path in configs]
    if len({variant.sees for variant in variants}) > 1:
        reads = next(v.name for v in variants if not v.sees)
        sees = next(v.name for v in variants if v.sees)
        raise UserError(f"{reads} reads texts and {sees} sees pictures: profile them apart.")
    lengths = lengths or own_lengths(variants[0])
    rows = []
    for length in lengths:
        for size in batch_sizes:
            rows += measure(variants, length, size, repeats)
            for row in rows[-len(variants) :]:
                say(f"{row['config']}: length {length}, batch {size}: {row['train_seconds']:.4f} s")
    device = variants[0].task.trainer.strategy.root_device
    return {
        "unit": "pixels of a side" if variants[0].sees else "tokens",
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "repeats": repeats,
        "lengths": list(lengths),
        "batch_sizes": list(batch_sizes),
        "rows": rows,
        "exponents": exponents(rows, area=variants[0].sees),
    }


def measure(variants: Sequence[Variant], length: int, size: int, repeats: int) -> list[dict]:
    """A row of results for each variant."""
    cases = []
    for variant in variants:
        try:
            cases.append(make_case(variant, length, size))
        except (ValueError, UserError) as error:
            raise UserError(f"{variant.name} at length {length}: {error}") from None
    training = medians([call for case in cases for call in (case.backward, case.update)], repeats)
    decoders = [case.decode for case in cases if case.decode is not None]
    decoding = iter(medians(decoders, repeats))
    rows = []
    for case, once, updated in zip(cases, training[::2], training[1::2], strict=True):
        variant, model = case.variant, case.variant.task.model
        parts, peak = typical(case, model)
        rows.append(
            {
                "config": variant.name,
                "length": length,
                "batch_size": size,
                "parameters": sum(p.numel() for p in model.parameters()),
                "flops": counted_flops(case.backward),
                "pass_seconds": once,
                "train_seconds": once + updated,
                "train_bytes": held(model, case.optimizer) + peak,
                "decode_seconds": None if case.decode is None else next(decoding),
                "shares": with_data(parts, once + updated, variant.row_seconds * size),
            }
        )
    return rows


def medians(calls: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of each; they take turns, so that a machine that slows down favours none."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(WARMUP + repeats):
        for call, seconds in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= WARMUP:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def typical(case: Case, model: nn.Module) -> tuple[dict[str, float], int]:
    """Shares and memory of a step, by the medians of a few."""
    runs = []
    for _ in range(PROFILED):
        case.optimizer.zero_grad()  # what is freed in the step should have been taken in it
        runs.append(profiled(case.train, model))
    middle = {name: statistics.median(shares[name] for shares, _ in runs) for name in PARTS}
    total = sum(middle.values())
    return {name: share / total for name, share in middle.items()}, max(peak for _, peak in runs)


def with_data(parts: dict[str, float], step: float, data: float) -> dict[str, float]:
    """Shares of the step's parts together with that of loading data one after the other."""
    shares = {name: parts[name] * step / (step + data) for name in PARTS}
    return {**shares, "data": data / (step + data)}


def held(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes that stay between steps: parameters, buffers and the optimizer's state."""
    states = [v for state in optimizer.state.values() for v in state.values()]
    tensors = [*model.parameters(), *model.buffers(), *(v for v in states if torch.is_tensor(v))]
    return sum(tensor.nbytes for tensor in tensors)


def exponents(rows: Sequence[dict[str, Any]], area: bool) -> list[dict[str, Any]]:
    """For each config and batch size the power of the length with which time grows, of forward and
    backward pass and of decoding.

    Args:
        area: lengths are sides, and the power is that of the number of pixels.
    """
    found = []
    for config, size in dict.fromkeys((row["config"], row["batch_size"]) for row in rows):
        own = [row for row in rows if (row["config"], row["batch_size"]) == (config, size)]
        fits: dict[str, Any] = {"config": config, "batch_size": size}
        for what in ("pass", "decode"):
            points = [
                (row["length"] ** (2 if area else 1), row[f"{what}_seconds"])
                for row in own
                if row[f"{what}_seconds"] is not None
            ]
            fits[what] = exponent(points)
        found.append(fits)
    return found


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """The slope of the least-squares line through the logarithms; None for fewer than two lengths."""
    if len({x for x, _ in points}) < 2:
        return None
    x, y = np.log(np.asarray(points, dtype=float)).T
    return float(np.polyfit(x, y, 1)[0])
