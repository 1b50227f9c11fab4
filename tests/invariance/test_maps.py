"""What is recorded of a member's attention: rows sum to one, padding is not read, and nothing else changes."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import CASES, batch_of, model_of, of_those, outputs, same

from family.accelerate import accelerate, restore
from family.look.maps import attention_maps, has_attention, stacks_of


def attends(case):
    return "Transformer" in inspect.getsource(
        inspect.getmodule(case.cls)
    ) and not case.cls.__module__.startswith("family.baselines")


@of_those(attends)
def test_rows_sum_to_one(name):
    model, batch = model_of(name), batch_of(name)
    if not has_attention(model):
        pytest.skip("nothing attends")
    before = outputs(model, batch)
    found = attention_maps(model, **batch)
    same(outputs(model, batch), before, 1e-12)
    assert list(found) == list(stacks_of(model))
    seen = 0
    for stack in found.values():
        for one in (*stack.own, *stack.across):
            if one is None:
                continue
            seen += 1
            assert one.dim() == 4 and not one.requires_grad and (one >= 0).all()
            sums = one.sum(-1)
            empty = sums == 0  # a query of padding may attend to nothing
            torch.testing.assert_close(sums[~empty], torch.ones_like(sums[~empty]))
            assert empty.float().mean() < 0.9
    assert seen


@of_those(
    lambda case: attends(case) and {"mask", "input_ids"} <= {*case.inputs} and len(case.inputs) < 6
)
def test_padding_is_not_read(name):
    model, batch = model_of(name), batch_of(name)
    mask = batch.get("mask")
    if mask is None or mask.all():
        pytest.skip("no padding")
    tokens = mask.shape[1]
    for stack in attention_maps(model, **batch).values():
        for one in stack.own:
            if one is not None and one.shape[-1] == tokens and len(one) == len(mask):
                assert one.transpose(1, 3)[~mask].abs().max() == 0


@pytest.mark.parametrize("name", [n for n in CASES if n in ("BERT", "GPT", "Seq2Seq", "ViT")])
def test_other_kernels_leave_the_same_maps(name):
    model, batch = model_of(name), batch_of(name)
    plain = attention_maps(model, **batch)
    try:
        found = attention_maps(accelerate(model), **batch)
    finally:
        restore(model)
    for stack in plain:
        for ours, theirs in zip(found[stack].own, plain[stack].own, strict=True):
            torch.testing.assert_close(ours, theirs)
