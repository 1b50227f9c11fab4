"""Pictures to tokens and back: shapes, what stands still, and what does not fit."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from PIL import Image

import family
from family.inputs.preprocess import Preprocess
from family.models.member import build, describe

SMALL = {"width": 8, "depth": 1}


def tokenizer(**given):
    torch.manual_seed(0)
    codebook = given.pop("codebook", family.CodebookConfig(size=30, dim=4))
    return family.ImageTokenizer(**{"image_size": 16, **SMALL, **given}, codebook=codebook)


@pytest.mark.parametrize("downsampling", [4, 8])
@pytest.mark.parametrize("patch_size", [1, 4])
def test_the_grid_and_its_order(downsampling, patch_size):
    model = tokenizer(image_size=(16, 24), downsampling=downsampling, patch_size=patch_size).eval()
    rows, columns = model.grid
    assert (rows, columns) == (16 // downsampling, 24 // downsampling)
    x = torch.randn(2, 3, 16, 24)
    ids = model.tokenize(x)
    assert ids.shape == (2, rows * columns) and ids.dtype == torch.int64
    assert model.encode(x).shape == (2, model.latent_dim, rows, columns)
    torch.testing.assert_close(model.decode(ids), model(x))
    assert model.decode_latents(model.encode(x)).shape == x.shape
    torch.testing.assert_close(model.decode_latents(model.encode(x), quantised=True), model(x))
    last = model.encode(x)[:, :, 0, -1]  # of the first row
    assert torch.equal(model.codebook.find(last), ids[:, columns - 1])


def test_tokens_of_their_own_squares_alone():
    """With kernel_size=1 a token and its square of pixels know no other."""
    model = tokenizer(kernel_size=1, patch_size=8).eval()
    torch.nn.init.normal_(model.encoder[1].last[-1].weight)
    x = torch.randn(1, 3, 16, 16)
    changed = x.clone()
    changed[:, :, 8:, 8:] += 1
    a, b = model.encode(x), model.encode(changed)
    assert torch.equal(a[..., 0, :], b[..., 0, :]) and not torch.equal(a[..., 1, 1], b[..., 1, 1])
    ids = model.tokenize(x)
    other = (ids + torch.tensor([0, 0, 0, 1])) % model.vocab_size
    assert torch.equal(model.decode(ids)[..., :8, :], model.decode(other)[..., :8, :])
    with pytest.raises(ValueError, match="patch_size must be that too, not 4"):
        tokenizer(kernel_size=1, patch_size=4)
    with pytest.raises(ValueError, match="kernel_size must be 1 or 3, not 5"):
        tokenizer(kernel_size=5)


@pytest.mark.parametrize("kind", ["ema", "rotation", "fsq"])
def test_all_learn_and_the_codebook_only_in_training(kind):
    config = family.CodebookConfig(kind, size=30, dim=4, levels=(3, 3, 3))
    model, x = tokenizer(codebook=config), torch.randn(4, 3, 16, 16)
    terms = model.losses(x)
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + terms["commitment"])
    terms["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval().losses(x)
    model.train().tokenize(x)
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())


def test_it_is_made_again_from_plain_values():
    model = tokenizer(codebook=family.CodebookConfig("fsq", levels=(4, 5)))
    again = build(family.ImageTokenizer, describe(model)["arguments"])
    again.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(again.eval()(x), model.eval()(x)) and again.vocab_size == 20


def test_what_is_loaded_predicts(tmp_path):
    model = tokenizer()
    model.preprocess = Preprocess((16, 16), "crop", (0.5,) * 3, (0.5,) * 3)
    loaded = family.load(model)
    picture = Image.new("RGB", (30, 20), "red")
    [made] = loaded.predict([picture])
    assert made["picture"].size == (16, 16) and len(made["ids"]) == 4
    again = model.preprocess.restore(model.decode(torch.tensor([made["ids"]])))
    assert torch.equal(again[0, :, 3, 5], torch.tensor(made["picture"].getpixel((5, 3))))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"image_size": 50}, r"image_size=\(50, 50\) does not divide .* \(48, 48\) would"),
        ({"downsampling": 16}, "downsampling must be 4 or 8, not 16"),
        ({"patch_size": 3}, "patch_size=3 must divide downsampling=8"),
        ({"width": 12}, "width must be a multiple of 8, not 12"),
        ({"distance": "l3"}, "distance='l3' is unknown; choose one of: l1, l2"),
    ],
)
def test_impossible_sizes(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        tokenizer(**given)


def test_what_does_not_fit():
    model = tokenizer()
    with pytest.raises(ValueError, match="16 x 24 pixels for a tokenizer of 16 x 16"):
        model.tokenize(torch.randn(1, 3, 16, 24))
    with pytest.raises(ValueError, match=r"2 x 2 tokens, so that \(batch, 4\)"):
        model.decode(torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="the id 30 is beyond the codebook"):
        model.decode(torch.full((1, 4), 30))
    larger = dataclasses.replace(model.arguments["codebook"], size=31)
    with pytest.raises(RuntimeError) as refused:
        tokenizer(codebook=larger).load_state_dict(model.state_dict())
    assert "30 codes of 4 numbers" in str(refused.value).splitlines()[1]
