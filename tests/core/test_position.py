"""Positions that enter on scores."""

from __future__ import annotations

import torch

from family.core.position import AlibiBias


def test_slopes_that_were_rounded_are_exact_again():
    bias = AlibiBias(12)
    exact = bias.slopes.clone()
    assert bias.to(torch.bfloat16).slopes.dtype is torch.bfloat16
    assert torch.equal(bias.float().slopes, exact)
