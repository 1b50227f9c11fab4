"""In bfloat16, as a whole or under autocast, the answers stay near those of single precision."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from common import batch_of, finds_alone, model_of, of_those, outputs

BOUND = 0.1
"""Of the largest difference to the largest answer; a number in bfloat16 is off by up to 0.004."""
CHOICES = {"router", "codebook", "proposals"}
"""Parts that choose: a vector between two codes takes the other, and all that follows differs."""


def computes(case):
    """Boxes that a network of convolutions found are another choice, not a number nearby."""
    return not finds_alone(case)


@of_those(computes)
@torch.no_grad()
def test_bfloat16_is_near(name):
    model, batch = model_of(name, torch.float32), batch_of(name, 1, torch.float32)
    exact = outputs(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = outputs(model, batch)
    low = outputs(copy.deepcopy(model).to(torch.bfloat16), batch_of(name, 1, torch.bfloat16))
    for key, value in exact.items():
        for found in (mixed[key], low[key]):
            assert found.isfinite().all()
            if not chooses(model):
                apart = (found.float() - value).abs().max() / value.abs().max()
                assert apart < BOUND, f"{key}: {apart}"


def chooses(model):
    names = [name.split(".") for name, _ in model.named_modules()]
    return any(CHOICES & {*parts} for parts in names if parts[0] != "image_tokenizer")
