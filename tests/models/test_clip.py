"""CLIP: padding, where a text ends, the temperature, towers of one's own, published sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from family.core.config import TransformerConfig
from family.losses.contrastive import clip_loss, siglip_loss
from family.models.clip import CLIP, clip_small, clip_vit_b16, clip_vit_b32, clip_vit_l14

EOS = 49
TINY = {"dim": 32, "depth": 2, "heads": 4, "image_size": 16, "patch_size": 8, "embed_dim": 24}


def tiny(**overrides) -> CLIP:
    torch.manual_seed(0)
    model = clip_small(50, **{**TINY, "max_tokens": 20, **overrides}).eval()
    with torch.no_grad():  # large enough for a token out of place to show
        for parameter in model.text.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def texts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(1, 40, (n,), generator=generator) for n in (9, 4, 6)]
    return [torch.cat([row, torch.tensor([EOS])]) for row in rows]


def padded(length: int, side: str = "right", pad_id: int = 0):
    ids = torch.full((3, length), pad_id)
    mask = torch.zeros(3, length, dtype=torch.bool)
    for row, text in enumerate(texts()):
        place = slice(0, len(text)) if side == "right" else slice(length - len(text), length)
        ids[row, place], mask[row, place] = text, True
    return ids, mask


@pytest.mark.parametrize("eos_id", [EOS, None])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("pool", ["eos", "mean"])
def test_padding_changes_no_embedding(pool, causal, eos_id):
    model = tiny(text_causal=causal, text_pool=pool, eos_id=eos_id)
    alone = torch.cat([model.encode_text(text[None]) for text in texts()])
    assert (alone[0] - alone[1]).abs().max() > 0.1
    for length, side in ((10, "right"), (17, "right"), (17, "left")):
        together = model.encode_text(*padded(length, side))
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pad_id", [0, EOS])
def test_a_causal_text_that_ends_in_eos_needs_no_mask(pad_id):
    model = tiny(eos_id=EOS)
    with_mask = model.encode_text(*padded(10))
    without = model.encode_text(padded(10, pad_id=pad_id)[0])
    torch.testing.assert_close(without, with_mask, rtol=1e-4, atol=1e-5)


def test_a_text_without_its_eos_is_read_at_its_last_token():
    ids, mask = padded(12)
    cut = mask & (ids != EOS)
    marked, unmarked = tiny(eos_id=EOS), tiny(eos_id=None)
    torch.testing.assert_close(marked.encode_text(ids, cut), unmarked.encode_text(ids, cut))
    assert (marked.encode_text(ids, cut) - marked.encode_text(ids, mask)).abs().max() > 0.1


def test_a_text_too_long_names_the_limit():
    with pytest.raises(ValueError, match="21 tokens does not fit max_tokens=20"):
        tiny().encode_text(torch.ones(1, 21, dtype=torch.long))


def test_logits_are_scaled_cosines_of_the_embeddings():
    model, (ids, mask) = tiny(logit_bias=True), padded(10)
    pixels = torch.randn(2, 3, 16, 16)
    logits = model(pixels, ids, mask)
    images, words = model.encode_image(pixels), model.encode_text(ids, mask)
    assert images.shape == (2, 24)
    cosines = torch.cosine_similarity(images[:, None], words[None], dim=-1)
    torch.testing.assert_close(logits, 10 * cosines - 10)


def test_temperature_starts_as_published_and_comes_back_from_above_its_limit():
    model = tiny()
    for _ in range(2):
        assert model.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
        model.clamp_temperature()
    nn.init.constant_(model.logit_scale, 5.0)
    loss = clip_loss(torch.randn(4, 8), torch.randn(4, 8), model.logit_scale)
    loss.backward()
    assert float(model.logit_scale.grad) > 0  # random pairs: a step makes it smaller
    model.clamp_temperature()
    assert model.logit_scale.item() == pytest.approx(math.log(100))


def test_any_module_is_an_image_tower():
    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 24)

        def forward(self, pixels):
            return self.layer(pixels.mean((2, 3)))

    model = tiny(image_tower=Tower())
    ids, mask = padded(10)
    assert model(torch.randn(3, 3, 30, 20), ids, mask).shape == (3, 3)


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_other_poolings_of_pictures_have_no_class_token(pool):
    model = tiny(image_pool=pool)
    assert model.encode_image(torch.randn(2, 3, 16, 16)).shape == (2, 24)
    assert model.image.num_prefix_tokens == 0


@pytest.mark.parametrize("given", ["both", "neither"])
def test_one_image_tower_and_only_one(given):
    config = TransformerConfig(dim=32, depth=1, heads=4)
    image, tower = (config, nn.Identity()) if given == "both" else (None, None)
    with pytest.raises(ValueError, match=f"either image or image_tower, not {given}"):
        CLIP(50, image, config, image_tower=tower)


def test_unknown_text_pooling():
    with pytest.raises(
        ValueError, match="pooling.text='last' is unknown; choose one of: eos, mean"
    ):
        tiny(text_pool="last")


def test_overrides_reach_one_tower_or_both():
    model = tiny(image_depth=1, depth=2, text_causal=False, dropout=0.1, logit_bias=True)
    assert (len(model.image.transformer.blocks), len(model.text.transformer.blocks)) == (1, 2)
    assert not model.text.config.causal
    assert model.text.config.dropout == model.image.config.dropout == 0.1
    assert model.logit_bias.item() == -10


@pytest.mark.parametrize(
    ("build", "depths", "parameters"),
    [
        (clip_vit_b32, (12, 12), 151_277_313),
        (clip_vit_b16, (12, 12), 149_620_737),
        (clip_vit_l14, (24, 12), 427_616_513),
    ],
)
def test_published_sizes(build, depths, parameters):
    model = build(depth=1)
    total = sum(p.numel() for p in model.parameters())
    for tower, depth in zip((model.image, model.text), depths, strict=True):
        block = sum(p.numel() for p in tower.transformer.blocks[0].parameters())
        total += block * (depth - 1)
    assert total == parameters
    assert model.text.eos_id == 49_407


@pytest.mark.parametrize("sigmoid", [False, True])
def test_it_learns_which_text_belongs_to_which_picture(sigmoid):
    torch.manual_seed(0)
    model = clip_small(50, **TINY, logit_bias=sigmoid)
    ids, mask = padded(10)
    pixels = 2 * torch.eye(3)[:, :, None, None].expand(3, 3, 16, 16)  # red, green, blue
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(60):
        pair = model.encode_image(pixels), model.encode_text(ids, mask)
        if sigmoid:
            loss = siglip_loss(*pair, model.logit_scale, model.logit_bias)
        else:
            loss = clip_loss(*pair, model.logit_scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.clamp_temperature()
    assert torch.equal(model.eval()(pixels, ids, mask).argmax(1), torch.arange(3))
