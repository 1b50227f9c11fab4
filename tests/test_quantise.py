"""Weights in eight bits: nearly the same numbers, a fourth of the memory."""

from __future__ import annotations

import pytest
import torch

import family
from family.quantise import quantise


def bytes_of(tensor):
    if hasattr(tensor, "__tensor_flatten__"):  # of parts: numbers and their scales
        return sum(bytes_of(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return tensor.nbytes


def held_bytes(model):
    return sum(map(bytes_of, [*model.parameters(), *model.buffers()]))


def test_outputs_are_near_and_weights_small():
    pytest.importorskip("torchao")
    torch.manual_seed(0)
    model = family.llama(300, dim=64, depth=2, heads=4, kv_heads=2, max_tokens=64).eval()
    ids = torch.randint(0, 300, (2, 9))
    with torch.no_grad():
        before, size = model(ids), held_bytes(model)
        after = quantise(model)(ids)
        _, cache = model.prefill(ids[:, :8], capacity=1)
        torch.testing.assert_close(model.decode(ids[:, 8], cache), after[:, -1])
    assert 0 < (after - before).abs().max() < 0.02 * before.abs().max()
    # The table of the embedding stays: 300 * 64 numbers of four bytes.
    assert held_bytes(model) - 76_800 < 0.3 * (size - 76_800)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchao.quantization", None)
    with pytest.raises(ImportError, match=r"pip install 'transformer-family\[quantise\]'"):
        quantise(family.gpt_nano(31, dim=16, depth=1, heads=2))


def test_a_compiled_model_is_refused():
    pytest.importorskip("torchao")
    compiled = family.gpt_nano(31, dim=16, depth=1, heads=2)
    compiled.compile_decoding()
    with pytest.raises(ValueError, match="decoding is compiled cannot"):
        quantise(compiled)
