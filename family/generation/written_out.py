"""What a compiled step of one token computes otherwise than PyTorch's libraries, which are made for many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from family.core.attention import attend_eagerly
from family.core.mask import Allowed
from family.onednn import mkl_is_slow

FEW_ROWS = 4
"""Of a product with weights in eight bits, up to which it is faster as sums."""


def write_out(graph: fx.GraphModule) -> None:
    """Exchange, in place, the products and attention of a step on the CPU, where others are faster.

    One row times a matrix as a sum of products, and attention of one query as sums too: they are compiled to
    code that reads weights and keys at the full speed of the memory. Several rows by weights in blocks, on
    processors where that is faster.
    """
    ways: dict[Any, Callable[[fx.Node, list[Tensor]], Callable[..., Tensor] | None]] = {
        F.linear: product,
        F.scaled_dot_product_attention: one_query,
    }
    for target, choose in ways.items():
        for node in graph.graph.find_nodes(op="call_function", target=target):
            values = [n.meta["example_value"] for n in node.args if isinstance(n, fx.Node)]
            other = choose(node, values) if all(v.is_cpu for v in values) else None
            if other is None:
                continue
            with graph.graph.inserting_before(node):
                new = graph.graph.call_function(other, node.args, node.kwargs)
            new.meta = dict(node.meta)
            node.replace_all_uses_with(new)
            graph.graph.erase_node(node)
    graph.recompile()


def product(node: fx.Node, values: list[Tensor]) -> Callable[..., Tensor] | None:
    """In the place of ``F.linear``, of what it is given; None leaves it."""
    x, weight = values[0], values[1]
    rows = x.numel() // x.shape[-1]
    if in_eight_bits(weight):
        return sums_in_eight_bits if rows <= FEW_ROWS else rows_in_eight_bits
    if is_traceable_wrapper_subclass(weight) or x.dtype != weight.dtype:
        return None
    if x.dtype not in (torch.float32, torch.bfloat16):
        return None
    if rows == 1:
        return row_product
    # What the step itself computes a weight of, it would lay out once for all.
    if mkl_is_slow() and node.args[1].op == "placeholder":  # type: ignore[union-attr]
        return torch.ops.transformer_family.packed_linear.default
    return None


def row_product(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """:func:`torch.nn.functional.linear` of one row ``(1, ..., in)``."""
    row = (input.reshape(-1) * weight).sum(-1)
    return (row if bias is None else row + bias).view(*input.shape[:-1], -1)


def in_eight_bits(weight: Any) -> bool:
    """Whether these are torchao's weights in int8, one scale a row, for a product with what is not quantised."""
    kept = getattr(weight, "qdata", None)
    return (
        kept is not None
        and kept.dtype == torch.int8
        and weight.scale.shape == (len(weight), 1)
        and weight.act_quant_kwargs is None
        and weight.act_pre_scale is None
    )


def sums_in_eight_bits(input: Tensor, weight: Any, bias: Tensor | None = None) -> Tensor:
    """:func:`torch.nn.functional.linear` with torchao's int8, which is read as it is; 0 stands for 0."""
    x = input.flatten(0, -2).to(torch.promote_types(input.dtype, torch.float32))
    sums = (x.unsqueeze(1) * weight.qdata).sum(-1) * weight.scale.flatten()
    sums = sums if bias is None else sums + bias
    return sums.to(input.dtype).view(*input.shape[:-1], -1)


def rows_in_eight_bits(input: Tensor, weight: Any, bias: Tensor | None = None) -> Tensor:
    """:func:`sums_in_eight_bits`, for more rows."""
    product = torch.ops.transformer_family.int8_linear
    return product(input, weight.qdata, weight.scale.flatten(), bias)


def one_query(node: fx.Node, values: list[Tensor]) -> Callable[..., Tensor] | None:
    """In the place of attention, of what it is given; None leaves it."""
    names = ("attn_mask", "dropout_p", "is_causal")
    asked = dict(zip(names, node.args[3:], strict=False)) | node.kwargs
    query, masks = values[0], values[3:]
    if query.dim() != 4 or query.shape[2] != 1 or asked.get("is_causal") or asked.get("dropout_p"):
        return None
    return None if masks and masks[0].dtype == torch.bool else attention_as_sums


def attention_as_sums(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """:func:`torch.nn.functional.scaled_dot_product_attention` of one query ``(batch, heads, 1, head_dim)``
    without dropout, of keys and values of maybe fewer heads."""
    working = torch.promote_types(query.dtype, torch.float32)
    allowed = Allowed(added=attn_mask)
    found, _ = attend_eagerly(query.to(working), key, value, allowed, scale=scale, matmul=sums)
    return found.to(query.dtype)


def sums(left: Tensor, right: Tensor) -> Tensor:
    """:func:`torch.matmul`, as sums of products in the precision of the more exact of both: of a row, compiled."""
    return (left.unsqueeze(-1) * right.unsqueeze(-3)).sum(-2)
