"""The compiled step of decoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, fx


def compile_step(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A step ``(tokens, cache)`` of one token, compiled for each number of rows and size of the cache.

    On a GPU the steps of a text are one recorded graph, which is launched as a whole. Layers that are exchanged
    later on are not noticed: to look for them would take a tenth of the time.
    """
    unguarded: dict[str, Any] = {
        "guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe
    }
    compiled = torch.compile(step, dynamic=False, backend=inductor, options=unguarded)
    known: set[tuple[int, int]] = set()
    recorded: WeakKeyDictionary[Any, Recorded] = WeakKeyDictionary()

    def run(tokens: Tensor, cache: Any) -> Tensor:
        size = len(tokens), cache.progress.capacity
        if cache in recorded and recorded[cache].size == size:
            return recorded[cache](tokens)
        if size in known and not tokens.is_cuda:
            return compiled(tokens, cache)
        known.add(size)
        with torch._dynamo.config.patch(recompile_limit=8 + len(known)):  # else it gives up at 8
            logits = compiled(tokens, cache)
        # What stands elsewhere after a step, as other mixers' states may, would be read where it was.
        if tokens.is_cuda and not cache.others():
            recorded[cache] = Recorded(compiled, tokens, cache, size)
        return logits

    return run


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
    """PyTorch's compiler, after :func:`rows_as_sums`."""
    from torch._inductor.compile_fx import compile_fx  # slow to import

    rows_as_sums(graph)
    return compile_fx(graph, inputs)


def rows_as_sums(graph: fx.GraphModule) -> None:
    """Write the products of one row with a matrix as sums of products, in place.

    On the CPU these are compiled to code that reads the weights at the full speed of the memory; the
    products of its libraries do not, for one row.
    """
    for node in graph.graph.find_nodes(op="call_function", target=F.linear):
        values = [n.meta["example_value"] for n in node.args if isinstance(n, fx.Node)]
        one_row = values[0].numel() == values[0].shape[-1]
        if not one_row or not all(v.is_cpu and v.dtype == torch.float32 for v in values):
            continue
        with graph.graph.inserting_before(node):
            row = graph.graph.call_function(row_product, node.args, node.kwargs)
        row.meta = dict(node.meta)
        node.replace_all_uses_with(row)
        graph.graph.erase_node(node)
    graph.recompile()


def row_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`torch.nn.functional.linear` of one row ``(1, ..., in)``."""
    row = (x.reshape(-1) * weight).sum(-1)
    return (row if bias is None else row + bias).view(*x.shape[:-1], -1)
