"""Fusion: words and pictures of unequal sizes in one stack, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from family.models.fusion import Fusion, vilt_base

SMALL = {"dim": 24, "depth": 2, "heads": 2, "image_size": 32, "patch_size": 8}
SIDES = [(32, 56), (40, 24), (8, 24)]
"""Of the pictures of a batch."""


def small(**options) -> Fusion:
    torch.manual_seed(0)
    model = vilt_base(97, **{"num_classes": 5, **SMALL, **options})
    for parameter in model.parameters():  # off the zeros and ones of initialisation
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures, words and their masks."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(3, 3, 40, 56, generator=generator)
    ids = torch.randint(2, 97, (3, 9), generator=generator)
    mask = torch.arange(9) < torch.tensor([9, 7, 3])[:, None]
    pixel_mask = torch.zeros(3, 40, 56, dtype=torch.bool)
    for row, (height, width) in enumerate(SIDES):
        pixel_mask[row, :height, :width] = True
    return pixels, ids, mask, pixel_mask


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"position": "learned"},
        {"position": "sinusoidal"},
        {"position": "none"},
        {"class_token": False},
        {"register_tokens": 2},
    ],
)
def test_padding_changes_nothing(options):
    """Neither of words, left or right, nor of pictures."""
    model = small(**options)
    pixels, ids, mask, pixel_mask = batch()
    found = model(pixels, ids, mask, pixel_mask)
    left = torch.stack([row.roll(int((~keep).sum())) for row, keep in zip(ids, mask, strict=True)])
    close(model(pixels + ~pixel_mask[:, None], left, mask.flip(1), pixel_mask), found)
    for i, (height, width) in enumerate(SIDES):
        close(
            model(pixels[i : i + 1, :, :height, :width], ids[i : i + 1, mask[i]]), found[i : i + 1]
        )


def test_one_mask_is_enough():
    model = small()
    pixels, ids, mask, pixel_mask = batch()
    for one, all_seen in (
        ((mask, None), (mask, pixel_mask | True)),
        ((None, pixel_mask), (mask | True, pixel_mask)),
    ):
        close(model(pixels, ids, *one), model(pixels, ids, *all_seen))


def test_words_and_patches_are_told_apart():
    model = small(position="none", token_types=0)
    pixels, ids, *_ = batch()
    before = model(pixels, ids)
    with torch.no_grad():
        model.kinds.weight[1, :9] += 1.0
    assert not torch.allclose(model(pixels, ids), before, atol=1e-3)


def test_a_gradient_for_every_parameter():
    model, inputs = small(), batch()
    model(*inputs).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_without_classes_gives_the_pooled_pair():
    model = small(num_classes=0)
    inputs = batch()
    tokens = model.encode(*inputs)
    assert tokens.shape == (3, 9 + 1 + 35, 24)
    assert torch.equal(model(*inputs), model.pooled(tokens, inputs[2]))
    bare = small(num_classes=0, pooler=None)
    assert torch.equal(bare(*inputs), bare.encode(*inputs)[:, 0])


def test_new_classes_are_equally_likely():
    model = vilt_base(97, 5, **SMALL)
    assert torch.equal(model(*batch()), torch.zeros(3, 5))


PIXELS, IDS, _, PIXEL_MASK = batch()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: small(causal=True), "causal=False"),
        (lambda: small(cross_attention=True), "cross_attention=False"),
        (lambda: small(position="rotary"), "position='rotary' is not for words and patches"),
        (lambda: small(pooler="gleu"), "pooler='gleu' is unknown"),
        (lambda: small()(PIXELS[:2], IDS), "2 pictures need as many texts, not 3"),
        (lambda: small(max_tokens=8)(PIXELS, IDS), "max_tokens=8"),
        (lambda: small()(PIXELS[..., :30], IDS), "does not divide into patches"),
        (
            lambda: small(token_types=0)(PIXELS, IDS, token_types=IDS),
            "this model has token_types=0",
        ),
        (
            lambda: small(interpolation="bicubic")(PIXELS, IDS, None, PIXEL_MASK),
            "interpolation='aligned', not 'bicubic'",
        ),
    ],
)
def test_one_sentence_for_what_cannot_be(call, words):
    with pytest.raises(ValueError, match=words):
        call()
