"""The compiled step of decoding."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, fx

from family.core.cache import KeyValues
from family.generation.written_out import write_out
from family.onednn import forget


def compile_step(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A step ``(tokens, cache)`` of one token, a method, compiled for each number of rows and size of the cache, with
    padding and without.

    On the CPU it reads the columns that there are, on a GPU all that there is room for: there the steps of a text
    are one recorded graph, which is launched as a whole. Layers that are exchanged later on, and weights that
    change in the middle of a text, are not noticed: to look for them would take a tenth of the time.
    """
    unguarded: dict[str, Any] = {
        "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe
    }
    compiled = torch.compile(own(step), dynamic=False, backend=inductor, options=unguarded)
    known: set[tuple[int, ...]] = set()
    recorded: WeakKeyDictionary[Any, Recorded] = WeakKeyDictionary()
    begun: WeakSet[Any] = WeakSet()

    def run(tokens: Tensor, cache: Any) -> Tensor:
        size = len(tokens), cache.progress.capacity
        if cache in recorded and recorded[cache].size == size:
            return recorded[cache](tokens)
        if cache not in begun:  # the weights may have learnt since the last text
            begun.add(cache)
            forget()
        program = *size, cache.mask is not None, full(cache)
        if not tokens.is_cuda:
            cache.progress.there = columns(cache.progress.length + 1)
            if program in known:
                return compiled(tokens, cache)
        known.add(program)
        with torch._dynamo.config.patch(recompile_limit=8 + len(known)):  # else it gives up at 8
            logits = compiled(tokens, cache)
        # What stands elsewhere after a step, as other mixers' states may, would be read where it was.
        if tokens.is_cuda and not cache.others():
            recorded[cache] = Recorded(compiled, tokens, cache, size)
        return logits

    return run


def own(step: Any) -> Any:
    """The same method by a code of its own: PyTorch keeps programs by code, and as modules are not guarded, would
    take one model's for another's."""
    plain = step.__func__
    code = plain.__code__.replace()
    function = FunctionType(
        code, plain.__globals__, plain.__name__, plain.__defaults__, plain.__closure__
    )
    return MethodType(function, step.__self__)


def full(cache: Any) -> int:
    """How many layers this step fills, or a ring's has filled: all that they hold is another program."""
    states = (state.mixer for state in cache.layers)
    count = cache.progress.length + 1
    return sum(isinstance(one, KeyValues) and count >= one.size for one in states)


def columns(count: int) -> Tensor:
    """So many, of a number that does not compile anew."""
    there = torch.empty(count, dtype=torch.bool)
    torch._dynamo.mark_dynamic(there, 0)
    return there


class Recorded:
    """The step of one cache, as its GPU is to do it: what it reads and writes stands in the same places each time."""

    def __init__(
        self, step: Callable[..., Tensor], tokens: Tensor, cache: Any, size: tuple[int, int]
    ) -> None:
        self.size, self.tokens = size, tokens.clone()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = step(self.tokens, cache)

    def __call__(self, tokens: Tensor) -> Tensor:
        self.tokens.copy_(tokens)
        self.graph.replay()
        return self.logits.clone()


def inductor(graph: fx.GraphModule, inputs: Any) -> Any:
    """PyTorch's compiler, after :func:`~family.generation.written_out.write_out`."""
    from torch._inductor.compile_fx import compile_fx  # slow to import

    write_out(graph)
    return compile_fx(graph, inputs)
