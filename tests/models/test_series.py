"""SeriesTransformer: series that fit, and what is refused."""

from __future__ import annotations

import pytest
import torch

import family

CONFIG = family.TransformerConfig(dim=16, depth=1, heads=2, position="learned", max_tokens=4)


def test_refused_in_one_sentence():
    model = family.SeriesTransformer(3, CONFIG, channels=2, patch_size=3)
    assert model(torch.zeros(2, 12, 2)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"a series of 13 steps is 5 tokens.* positions for 4"):
        model(torch.zeros(2, 13, 2))
    for shape in ((2, 12, 1), (2, 12)):
        with pytest.raises(ValueError, match=r"takes series \(batch, steps, 2\), not"):
            model(torch.zeros(shape))
    with pytest.raises(ValueError, match="pool='last' is unknown; choose one of: mean, max"):
        family.SeriesTransformer(3, CONFIG, pool="last")
    with pytest.raises(ValueError, match="channels=0 and patch_size=1 must be at least 1"):
        family.SeriesTransformer(3, CONFIG, channels=0)


def test_a_step_of_rotary_positions_may_be_anywhere():
    rotary = family.SeriesTransformer(3, CONFIG.replace(position="rotary"), channels=1)
    torch.nn.init.normal_(rotary.head.weight)
    one = torch.randn(1, 50, 1)
    assert not torch.allclose(rotary(one), rotary(one.flip(1)))
