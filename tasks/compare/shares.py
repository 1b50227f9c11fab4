"""Where the time of a training step goes, and how much memory it takes: one step under the profiler.

Each part of a model - attention, feed-forward, an embedding, a head - is a named range around its
forward pass (a hook before and one behind). The backward pass has no such ranges; but autograd numbers
what it has to go back over, and the profiler tells the number of each operation in both directions: an
operation of the backward pass belongs to the part in which the one of its number ran forward. What
is in no part is "other" within the model (norms, residuals, pooling), and "loss" outside of it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from family.baselines.lstm_seq2seq import GeneralAttention
from family.core.attention import Attention
from family.core.feedforward import FeedForward
from family.heads.detection import DetectionHead
from family.heads.masked import MaskedHead
from family.inputs.patches import PatchEmbedding
from family.inputs.text import TextEmbedding

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "attention": (Attention, GeneralAttention, nn.MultiheadAttention),
    "feedforward": (FeedForward,),
    "recurrence": (nn.RNNBase,),
    "convolution": (nn.Conv2d,),
    "embedding": (TextEmbedding, PatchEmbedding, nn.Embedding),
    "head": (MaskedHead, DetectionHead),
}
"""Parts of models by the classes of their modules; the outermost that fits counts."""
PARTS = (*KINDS, "other", "loss", "optimizer")
PREFIX = "part: "
BACKWARD = "autograd::engine::evaluate_function: "


def profiled(step: Callable[[], Any], model: nn.Module) -> tuple[dict[str, float], int]:
    """Run a step once.

    Args:
        step: marks its loss and its optimizer by :func:`part`.

    Returns:
        part -> share of the step's time, all together 1; the most bytes that the step held beyond
        what was there before it.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would report of devices that are not there
    on_gpu = next(model.parameters()).is_cuda
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    before = 0
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with marked(model), profile(activities=activities, profile_memory=True) as profiler:
        step()
        if on_gpu:
            torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before if on_gpu else peak_on_cpu(profiler)
    times = times_by_part(list(profiler.events() or []), on_gpu)
    total = sum(times.values())
    return {name: times[name] / total for name in PARTS}, peak


def part(name: str) -> record_function:
    """A range of the profiler that belongs to a part."""
    return record_function(PREFIX + name)


@contextmanager
def marked(model: nn.Module) -> Iterator[None]:
    """Ranges around the forward passes of a model's parts."""
    ranges: list[record_function] = []

    def enter(name: str) -> Callable[..., None]:
        def before(module: nn.Module, inputs: Any) -> None:
            ranges.append(part(name))
            ranges[-1].__enter__()

        return before

    def leave(*_: Any) -> None:
        ranges.pop().__exit__(None, None, None)

    handles = []
    for name, module in parts_of(model):
        handles.append(module.register_forward_pre_hook(enter(name)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def parts_of(module: nn.Module, depth: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a model and their kinds; itself, and what it is directly made of, are "other"."""
    for name, kinds in KINDS.items():
        if isinstance(module, kinds):
            yield name, module
            return
    if depth and isinstance(module, nn.Linear):  # of a model itself: its answers
        yield "head", module
        return
    if depth < 2:
        yield "other", module
    for child in module.children():
        yield from parts_of(child, depth + 1)


def times_by_part(events: list[Any], on_gpu: bool) -> dict[str, float]:
    """Microseconds of each part, forward and backward together."""
    times: dict[str, float] = defaultdict(float)
    part_of_number: dict[int, str] = {}

    def spent(event: Any) -> float:
        return event.device_time_total if on_gpu else event.time_range.elapsed_us()

    for event in sorted(events, key=lambda e: e.time_range.start):
        around = part_around(event)
        if event.name.startswith(PREFIX):
            times[event.name.removeprefix(PREFIX)] += spent(event)
            if around is not None:
                times[around] -= spent(event)
        elif event.name.startswith(BACKWARD):
            times[part_of_number.get(event.sequence_nr, "other")] += spent(event)
        elif event.sequence_nr >= 0 and event.scope == 0 and around is not None:
            # The last to begin under a number is the one that autograd recorded.
            part_of_number[event.sequence_nr] = around
    return times


def part_around(event: Any) -> str | None:
    """The innermost part that an event lies in."""
    outer = event.cpu_parent
    while outer is not None and not outer.name.startswith(PREFIX):
        outer = outer.cpu_parent
    return None if outer is None else outer.name.removeprefix(PREFIX)


def peak_on_cpu(profiler: profile) -> int:
    """The most bytes that were taken and not yet given back; what was there before does not count."""
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    taken = most = 0
    events: list[Any] = profiler.profiler.kineto_results.events()
    memory = [event for event in events if event.name() == "[memory]"]
    for event in sorted(memory, key=lambda e: e.start_ns()):
        taken += event.nbytes()
        most = max(most, taken)
    return most
