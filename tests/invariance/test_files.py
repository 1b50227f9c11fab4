"""Saved and loaded, a model is the same to the bit, in whatever precision it is."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import batch_of, everyone, model_of, of_those, outputs

import family

LOW = pytest.param(torch.bfloat16, marks=pytest.mark.slow)


@pytest.mark.parametrize("dtype", [torch.float32, LOW], ids=str)
@of_those(everyone)
@torch.no_grad()
def test_saved_and_loaded_is_the_same(tmp_path, name, dtype):
    model, batch = copy.deepcopy(model_of(name, torch.float32)).to(dtype), batch_of(name, 1, dtype)
    family.save_pretrained(model, tmp_path)
    again = family.from_pretrained(tmp_path)
    state, loaded = model.state_dict(), again.state_dict()
    assert state.keys() == loaded.keys() and not again.training
    for key, value in state.items():
        assert loaded[key].dtype == value.dtype and torch.equal(loaded[key], value), key
    if not found_in(model, dtype):
        return
    found, expected = outputs(again, batch), outputs(model, batch)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def found_in(model, dtype):
    """Boxes that convolutions propose are worked out in single precision at least: by torchvision."""
    return dtype == torch.float32 or not hasattr(model, "net")
