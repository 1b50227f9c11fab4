"""What a compiled step writes out computes what it stands in the place of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from family import onednn
from family.generation import written_out
from family.generation.written_out import (
    attention_as_sums,
    in_eight_bits,
    row_product,
    rows_in_eight_bits,
    sums_in_eight_bits,
    write_out,
)


def written(module, x):
    """The calls of the module's graph after :func:`write_out`, whose result is the module's."""
    torch._dynamo.reset()
    seen = []

    def backend(graph, inputs):
        write_out(graph)
        seen.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    with torch.no_grad():
        found = torch.compile(module, backend=backend)(x)
        torch.testing.assert_close(found, module(x), rtol=1e-4, atol=1e-5)
    return seen


@pytest.mark.parametrize(
    ("rows", "slow", "sums", "packs"), [(1, True, 2, 0), (3, True, 0, 2), (3, False, 0, 0)]
)
def test_products_become_sums_or_read_weights_in_blocks(monkeypatch, rows, slow, sums, packs):
    if onednn.OPERATOR is None:
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(written_out, "mkl_is_slow", lambda: slow)
    layers = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.Linear(8, 4, bias=False))
    seen = written(layers, torch.randn(rows, 1, 16))
    assert seen.count(row_product) == sums
    assert seen.count(torch.ops.transformer_family.packed_linear.default) == packs


def test_weights_in_blocks_are_laid_out_anew_for_a_text_and_end_with_their_weight():
    if onednn.OPERATOR is None:
        pytest.skip("this PyTorch has no oneDNN")
    onednn.forget()
    x, weight, bias = torch.randn(3, 1, 16), torch.randn(8, 16), torch.randn(8)
    product = torch.ops.transformer_family.packed_linear
    torch.testing.assert_close(product(x, weight, bias), F.linear(x, weight, bias))
    weight.mul_(2)
    onednn.forget()
    torch.testing.assert_close(product(x, weight, None), F.linear(x, weight))
    torch.testing.assert_close(product(x[:1], weight, None), F.linear(x[:1], weight))
    assert len(onednn.packs) == 1
    del weight
    assert not onednn.packs


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_products_with_eight_bits(rows):
    quantization = pytest.importorskip("torchao.quantization")
    layer = torch.nn.Linear(32, 8).requires_grad_(False)
    quantization.quantize_(layer, quantization.Int8WeightOnlyConfig())
    assert in_eight_bits(layer.weight) and not in_eight_bits(torch.zeros(8, 32))
    x = torch.randn(rows, 1, 32)
    expected = F.linear(x, layer.weight.dequantize(), layer.bias)
    for product in (sums_in_eight_bits, rows_in_eight_bits):
        torch.testing.assert_close(product(x, layer.weight, layer.bias), expected)
    seen = written(layer, x)
    assert (sums_in_eight_bits if rows < 5 else rows_in_eight_bits) in seen


@pytest.mark.parametrize("kv_heads", [6, 2])
@pytest.mark.parametrize("masks", [None, "shared", "by_head"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_attention_of_one_query(kv_heads, masks, dtype):
    torch.manual_seed(0)
    query = torch.randn(2, 6, 1, 16, dtype=dtype)
    key, value = torch.randn(2, 2, kv_heads, 9, 16, dtype=dtype).unbind()
    mask = (
        None if masks is None else torch.randn(2, 1 if masks == "shared" else 6, 1, 9, dtype=dtype)
    )
    options = {"scale": 0.3, "enable_gqa": kv_heads < 6}
    found = attention_as_sums(query, key, value, mask, **options)
    assert found.dtype == dtype
    exact = [None if x is None else x.double() for x in (query, key, value, mask)]
    expected = F.scaled_dot_product_attention(*exact, **options)
    torch.testing.assert_close(found, expected.to(dtype))


@pytest.mark.parametrize(
    "options", [{"is_causal": True}, {"attn_mask": torch.ones(1, 1, 1, 9) > 0}]
)
def test_other_attention_is_left_as_it_is(options):
    class Attends(torch.nn.Module):
        def forward(self, x):
            mask = options.get("attn_mask")
            return F.scaled_dot_product_attention(
                x[:, :, :1], x, x, mask, 0.0, "is_causal" in options
            )

    assert attention_as_sums not in written(Attends(), torch.randn(2, 2, 9, 4))
