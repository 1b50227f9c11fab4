"""The product of linear layers: the same numbers and gradients, whichever library computes it."""

from __future__ import annotations

import gc
import pathlib
import platform
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

import family
from family import Transformer, TransformerConfig, onednn
from family import accelerate as module
from family.accelerate import Linear, accelerate, attend_fast, linear, restore
from family.core.attention import attend
from family.core.mask import allow

SHAPES = [((4, 64, 256), 512), ((256, 512), 256), ((2, 2, 64, 256), 256)]
"""Of the input, and the width of the output: wide, narrow, square; all worth a call of oneDNN."""


mkl_is_slow = module.mkl_is_slow


@pytest.fixture(autouse=True)
def _with_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(module, "mkl_is_slow", lambda: True)


def drawn(shape: tuple[int, ...], out: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    dim = shape[-1]
    return tuple(torch.randn(s, requires_grad=True) for s in [shape, (out, dim), (out,)])  # type: ignore[return-value]


def close(ours: Any, reference: Any) -> None:
    for one, other in zip(ours, reference, strict=True):
        largest = float(other.detach().abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * largest)


@pytest.mark.parametrize(("shape", "out"), SHAPES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_output_and_gradients_are_those_of_pytorch(
    shape: tuple[int, ...], out: int, with_bias: bool
) -> None:
    x, weight, bias = drawn(shape, out)
    leaves = (x, weight, bias) if with_bias else (x, weight)
    results = []
    for product in (linear, F.linear):
        y = product(*leaves)
        cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        results.append((y, *torch.autograd.grad(y, leaves, cotangent)))
    assert "OneDNN" in type(linear(*leaves).grad_fn).__name__
    close(*results)


def test_a_bias_of_any_strides() -> None:
    x, weight, _ = (t.detach() for t in drawn(*SHAPES[0]))
    long, one = torch.randn(1024), torch.ones(1)
    for strided in (long[::2], one.expand(512)):
        close([linear(x, weight, strided)], [F.linear(x, weight, strided)])


def test_a_frozen_layer_keeps_no_input() -> None:
    x, weight, _ = drawn(*SHAPES[0])
    weight.requires_grad_(False)
    doubled = 2 * x
    alive = weakref.ref(doubled)
    y = linear(doubled, weight)
    del doubled
    gc.collect()
    assert alive() is None
    y.sum().backward()


def test_gradients_are_contiguous() -> None:
    x, weight, bias = drawn(*SHAPES[0])
    for gradient in torch.autograd.grad(linear(x, weight, bias).sum(), (x, weight, bias)):
        assert gradient.is_contiguous()


def test_only_the_gradients_asked_for_are_computed() -> None:
    x, weight, bias = drawn(*SHAPES[0])
    weight.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        linear(x, weight, bias).sum().backward()
    assert weight.grad is None
    assert x.grad is not None
    assert counter.get_total_flops() == 2 * 2 * x.numel() * len(weight)


def test_second_derivatives() -> None:
    x, weight, bias = drawn(*SHAPES[1])

    def penalty(product: Any) -> Any:
        first = torch.autograd.grad(
            product(x, weight, bias).pow(2).sum(), (x, weight), create_graph=True
        )
        return torch.autograd.grad(sum(g.pow(2).sum() for g in first), (x, weight, bias))

    close(penalty(linear), penalty(F.linear))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_function_transforms() -> None:
    x, weight, bias = (t.detach() for t in drawn(*SHAPES[0]))
    directions = tuple(t.flip(0) for t in (x, weight, bias))
    close(jvp(linear, (x, weight, bias), directions), jvp(F.linear, (x, weight, bias), directions))

    def gradients(product: Any) -> Any:
        loss = lambda w, row: product(row, w, bias).pow(2).sum()  # noqa: E731
        return vmap(torch.func.grad(loss), (None, 0))(weight, x.repeat(1, 8, 1))

    close([gradients(linear)], [gradients(F.linear)])


def test_views_and_slices_as_input() -> None:
    x, weight, _ = (t.detach() for t in drawn((64, 3, 256), 512))
    close(
        [linear(x[:, -1], weight), linear(x.transpose(0, 1), weight), linear(x, weight[:256])],
        [
            F.linear(x[:, -1], weight),
            F.linear(x.transpose(0, 1), weight),
            F.linear(x, weight[:256]),
        ],
    )


@pytest.mark.parametrize("rows", [1, 64])
def test_compiled(rows: int) -> None:
    layer = Linear(256, 512)
    x = torch.randn(rows, 1, 256)
    compiled = torch.compile(layer, fullgraph=True)
    with torch.no_grad():
        close([compiled(x)], [F.linear(x, layer.weight, layer.bias)])


def test_what_does_not_fit_is_refused_compiled_or_not() -> None:
    x, weight = torch.randn(1, 8), torch.randn(4, 1)
    for product in (linear, torch.compile(linear)):
        with torch.no_grad(), pytest.raises(RuntimeError, match="shapes|size|dimension|multipl"):
            product(x, weight)


def test_sparse_weights_and_traces_are_left_to_pytorch() -> None:
    x, weight, _ = (t.detach() for t in drawn((64, 256), 512))
    close([linear(x, weight.to_sparse_csr())], [F.linear(x, weight)])
    layer = Linear(256, 512).requires_grad_(False)
    close([torch.jit.trace(layer, x)(x)], [layer(x)])


def test_exported_files_hold_the_ordinary_product() -> None:
    program = torch.export.export(Linear(256, 512), (torch.randn(64, 256),))
    assert "aten.linear" in str(program.graph)


def test_autocast_and_other_precisions_are_left_to_pytorch() -> None:
    layer, x = Linear(256, 512), torch.randn(64, 256)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64


def test_small_products_are_left_to_pytorch() -> None:
    x, weight, bias = drawn((2, 16), 16)
    assert "OneDNN" not in type(linear(x, weight, bias).grad_fn).__name__


def test_the_layer_is_a_linear_layer() -> None:
    layer = Linear(256, 512)
    assert isinstance(layer, torch.nn.Linear)
    x = torch.randn(64, 256)
    double = {name: 2 * p for name, p in layer.named_parameters()}
    close([functional_call(layer, double, (x,))], [2 * layer(x)])


def test_only_processors_of_amd_are_taken_for_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "Path", lambda path: pathlib.Path("none"))
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    for processor, capability, slow in [
        ("AMD64 Family 25 Model 33 Stepping 2, AuthenticAMD", "AVX512", True),
        ("AMD64 Family 25 Model 33 Stepping 2, AuthenticAMD", "AVX2", False),
        ("Intel64 Family 6 Model 106 Stepping 6, GenuineIntel", "AVX512", False),
    ]:
        monkeypatch.setattr(platform, "processor", lambda processor=processor: processor)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        assert mkl_is_slow.__wrapped__() == slow


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    fields = {"dim": 256, "depth": 1, "heads": 4, "cross_attention": True}
    return Transformer(TransformerConfig(**fields)).eval()


def test_a_model_computes_what_it_did_and_goes_back() -> None:
    model = small()
    x, position = torch.randn(2, 2, 64, 256)
    names = list(model.state_dict())
    expected = model(x, context=x, query_position=position)
    kinds = [type(m) for m in model.modules()]
    assert accelerate(model) is model
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert layers and all(type(layer) is Linear for layer in layers)
    assert model.blocks[0].self_attention.sublayer.linear is linear
    assert list(model.state_dict()) == names
    assert model.blocks[0].self_attention.sublayer.qkv.parts == 3
    close([model(x, context=x, query_position=position)], [expected])
    assert [type(m) for m in restore(model).modules()] == kinds
    assert model.blocks[0].self_attention.sublayer.linear is F.linear
    assert model.blocks[0].self_attention.sublayer.attend is attend


def test_other_processors_keep_their_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "mkl_is_slow", lambda: False)
    model = accelerate(small())
    assert {type(m) for m in model.modules() if isinstance(m, torch.nn.Linear)} == {torch.nn.Linear}


@pytest.mark.filterwarnings("ignore")
def test_quantisation_by_type_finds_every_layer() -> None:
    """Models have ordinary linear layers, heads included."""
    for model in (family.gpt_nano(31), family.transformer_tiny(31), family.bert_tiny(31)):
        linear_layers = sum(isinstance(m, torch.nn.Linear) for m in model.modules())
        quantised = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear})
        left = [m for m in quantised.modules() if isinstance(m, torch.nn.Linear)]
        assert linear_layers and not left


def test_few_scores_give_what_the_fused_kernel_gives() -> None:
    """Decoding several tokens a row goes another way on the CPU."""
    queries, keys, values = (torch.randn(8, 4, n, 16) for n in (3, 9, 9))
    mask = torch.rand(8, 1, 3, 9) > 0.5
    mask[0, 0, 1] = False  # nothing to attend to
    bias = torch.randn(1, 4, 3, 9)
    for allowed in (allow(None, None, keys.dtype), allow(mask, bias, keys.dtype)):
        with torch.no_grad():
            assert module.few_scores(queries, keys)
            ours = attend_fast(queries, keys, values, allowed)
            torch.testing.assert_close(ours, attend(queries, keys, values, allowed))


def test_half_precision_stays_with_the_fused_kernel() -> None:
    queries, keys = (torch.randn(8, 4, n, 16, dtype=torch.bfloat16) for n in (3, 9))
    with torch.no_grad():
        assert not module.few_scores(queries, keys)


def test_bfloat16_learns_through_the_kernels_of_float32() -> None:
    """Its own go back more slowly, and round more: outputs and gradients are those of float32, rounded once."""
    wide = [torch.randn(2, 4, n, 16) for n in (7, 7, 7)]
    half = [x.bfloat16().requires_grad_() for x in wide]
    exact = [x.detach().float().requires_grad_() for x in half]
    allowed = allow(torch.rand(2, 1, 7, 7) > 0.3, None, torch.float32)
    upstream = torch.randn(2, 4, 7, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        ours = attend_fast(*half, allowed)
    assert ours.dtype == torch.bfloat16
    theirs = attend(*exact, allowed)
    torch.testing.assert_close(ours, theirs.bfloat16(), rtol=0, atol=0)
    ours.backward(upstream)
    theirs.backward(upstream.float())
    for x, y in zip(half, exact, strict=True):
        assert x.grad is not None and y.grad is not None
        torch.testing.assert_close(x.grad, y.grad.bfloat16(), rtol=0, atol=0)
    with torch.no_grad():
        assert not module.faster_in_float32(half[0])  # decoding reads keys as they are kept
