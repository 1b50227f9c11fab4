"""Compiled and exported, a model gives what it gives otherwise."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import (
    CASES,
    batch_of,
    everyone,
    finds_alone,
    model_of,
    of_those,
    outputs,
    same,
    weighted,
)

from tasks.errors import UserError
from tasks.runs.export import difference, quietly, to_program


def first_of_its_kind(case):
    """Of all that read the same, the first."""
    alike = (c for c in CASES.values() if c.cls.facts.reads == case.cls.facts.reads)
    return next(alike) is case


def compiled_is_eager(name, backend, bound):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, batch = copy.deepcopy(model_of(name, torch.float32)), batch_of(name, 1, torch.float32)
    expected = outputs(model, batch)
    again = copy.deepcopy(model)
    found = outputs(Compiled(again, backend), batch)
    same(found, expected, bound)
    if finds_alone(CASES[name]) or backend == "eager":
        return
    for _one, values in ((model, expected), (again, found)):
        weighted(values).backward()
    for (key, left), right in zip(model.named_parameters(), again.parameters(), strict=True):
        if left.grad is None:
            assert right.grad is None, key
            continue
        torch.testing.assert_close(right.grad, left.grad, rtol=10 * bound, atol=10 * bound)


class Compiled:
    """As ``model(...)``, through torch.compile."""

    def __init__(self, model, backend):
        self.facts, self.run = model.facts, torch.compile(model, backend=backend)

    def __call__(self, **batch):
        return self.run(**batch)


def first_of_texts_or_clips(case):
    """What costs least."""
    return first_of_its_kind(case) and case.cls.facts.reads in (("text",), ("video",))


@of_those(first_of_texts_or_clips)
def test_traced_is_eager(name):
    compiled_is_eager(name, "eager", 1e-4)


@pytest.mark.slow
@of_those(everyone)
def test_traced_is_eager_forward_and_backward(name):
    compiled_is_eager(name, "aot_eager", 1e-4)


@pytest.mark.slow
@of_those(first_of_its_kind)
def test_compiled_is_eager(name):
    compiled_is_eager(name, "inductor", 1e-3)


@pytest.mark.slow
@of_those(everyone)
def test_exported_is_ours(name, tmp_path):
    """A batch of other sizes than that of the export; or it says in a sentence that there is none."""
    torch._dynamo.reset()
    model = copy.deepcopy(model_of(name, torch.float32)).requires_grad_(False)
    try:
        found = difference(model, quietly(to_program, model, tmp_path))
    except UserError as said:
        pytest.skip(str(said))
    assert found < 1e-4
