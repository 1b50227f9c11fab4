"""VideoViT: clips that fit, places in them, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from family.models.video import videomae_base

SMALL = {"dim": 24, "depth": 1, "heads": 2, "image_size": 16, "patch_size": 8}


def test_clips_must_fit():
    model = videomae_base(3, 4, **SMALL).eval()
    assert model(torch.randn(2, 4, 3, 16, 16)).shape == (2, 3)
    for shape in ((2, 6, 3, 16, 16), (2, 4, 3, 16, 24), (2, 3, 4, 16, 16), (4, 3, 16, 16)):
        with pytest.raises(
            ValueError, match=r"\(batch, 4, 3, 16, 16\), frames before channels, not"
        ):
            model(torch.randn(shape))
    with pytest.raises(ValueError, match="position='learned' is not for tubelets"):
        videomae_base(3, 4, **SMALL, position="learned")
    with pytest.raises(ValueError, match="pool='attention' is unknown; choose one of: mean, class"):
        videomae_base(3, 4, **SMALL, pool="attention")
    with pytest.raises(ValueError, match="must be multiples"):
        videomae_base(3, 4, **SMALL, tubelet_size=0)


def test_tokens_are_counted_through_the_whole_clip():
    """The same tubelet anywhere else is told apart by its place alone."""
    model = videomae_base(3, 4, **SMALL)
    x = model.embedding(torch.ones(1, 4, 3, 16, 16))[0]
    waves = x - x[0] + model.embedding.table[0]
    angles = torch.arange(8)[:, None] / 10_000 ** (torch.arange(12) / 12)
    expected = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
    torch.testing.assert_close(waves, expected, atol=1e-6, rtol=1e-5)


def test_a_gradient_for_every_parameter():
    model = videomae_base(3, 4, **SMALL)
    nn.init.normal_(model.head.weight)
    model(torch.randn(2, 4, 3, 16, 16)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_places_that_were_rounded_are_exact_again():
    embedding = videomae_base(3, 4, **SMALL).embedding
    exact = embedding.table.clone()
    assert embedding.to(torch.bfloat16).table.dtype is torch.bfloat16
    assert torch.equal(embedding.float().table, exact)
