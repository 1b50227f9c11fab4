"""Segmenter: shapes, both decoders written out, and pictures that do not divide into patches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from family.adapt.resize import resize
from family.models.segmenter import Segmenter, segmenter_small, segmenter_tiny


def small(**overrides) -> Segmenter:
    torch.manual_seed(0)
    model = segmenter_tiny(4, 8, (32, 24), **{"dim": 24, "depth": 2, "heads": 2, **overrides})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def pictures(height=32, width=24) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_published_sizes():
    for build, million in ((segmenter_small, 26.03), (segmenter_tiny, 6.71)):
        count = sum(p.numel() for p in build().parameters()) / 1e6
        assert count == pytest.approx(million, abs=0.01)


@pytest.mark.parametrize("decoder", ["linear", "mask"])
@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_every_pixel_has_logits_and_every_parameter_a_gradient(decoder, position):
    model = small(decoder=decoder, position=position)
    for size in ((32, 24), (16, 64), (33, 23), (5, 7)):
        assert model(pictures(*size)).shape == (2, 4, *size)
    F.cross_entropy(model(pictures()), torch.randint(4, (2, 32, 24))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_linear_decoder_scores_each_patch():
    model = small(decoder="linear", register_tokens=2)
    x = pictures()
    patches = model.encoder.forward_features(x)[:, 3:]
    scores = patches @ model.decoder.head.weight.T + model.decoder.head.bias
    grid = scores.transpose(1, 2).reshape(2, 4, 4, 3)
    expected = F.interpolate(grid, size=(32, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(model(x), expected)


def test_mask_decoder_is_the_formula_of_the_paper():
    decoder = small().decoder
    patches = torch.randn(2, 6, 24)
    tokens = [
        torch.cat([decoder.projection(example), decoder.classes.weight]) for example in patches
    ]
    tokens = decoder.transformer(torch.stack(tokens))
    scores = torch.zeros(2, 6, 4)
    for example in range(2):
        for patch in range(6):
            for label in range(4):
                z = decoder.patch_projection.weight @ tokens[example, patch]
                c = decoder.class_projection.weight @ tokens[example, 6 + label]
                scores[example, patch, label] = z @ c / (z.norm() * c.norm())
    mean, variance = scores.mean(-1, keepdim=True), scores.var(-1, keepdim=True, unbiased=False)
    normed = (scores - mean) / (variance + decoder.norm.eps).sqrt()
    torch.testing.assert_close(decoder(patches), normed * decoder.norm.weight + decoder.norm.bias)


def test_decoder_depth_and_final_norm():
    model = small(decoder_depth=3)
    assert len(model.decoder.transformer.blocks) == 3
    assert isinstance(model.encoder.transformer.norm, nn.LayerNorm)
    assert isinstance(model.decoder.transformer.norm, nn.LayerNorm)


@pytest.mark.parametrize("decoder", ["linear", "mask"])
def test_a_filled_up_picture_is_cut_back_to_itself(decoder):
    model = small(decoder=decoder)
    x = pictures(29, 19)
    filled = torch.zeros(2, 3, 32, 24)
    filled[..., :29, :19] = x
    torch.testing.assert_close(model(x), model(filled)[..., :29, :19])


def test_a_size_that_does_not_divide_has_a_table_that_covers_it():
    model = segmenter_tiny(4, 8, (30, 20), dim=24, depth=1, heads=2)
    assert model.image_size == (30, 20)
    assert model.encoder.embedding.position.weight.shape == (1 + 4 * 3, 24)


def test_convolutional_stem():
    assert small(stem="conv")(pictures()).shape == (2, 4, 32, 24)


def test_one_sentence_for_what_cannot_be():
    with pytest.raises(ValueError, match="decoder='mlp' is unknown; choose one of: linear, mask"):
        small(decoder="mlp")
    with pytest.raises(ValueError, match="num_classes must be at least 2, not 1"):
        segmenter_tiny(1, 8, 32, dim=24, depth=1, heads=2)


@pytest.mark.parametrize("decoder", ["linear", "mask"])
@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_each_pixel_a_token(decoder, position):
    """The logits of a pixel are the scores of its own token, none interpolated."""
    model = segmenter_tiny(
        4, 1, (6, 5), dim=24, depth=2, heads=2, decoder=decoder, position=position
    ).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = pictures(6, 5)
    tokens = model.encoder.forward_features(x)[:, model.encoder.num_prefix_tokens :]
    assert tokens.shape == (2, 30, 24)
    scores, logits = model.decoder(tokens), model(x)
    for row in range(6):
        for column in range(5):
            torch.testing.assert_close(logits[:, :, row, column], scores[:, 5 * row + column])
    # Where attention adds nothing, the pixel itself is all that is seen.
    alone = segmenter_tiny(4, 1, (6, 5), dim=24, depth=1, heads=2, decoder="linear").eval()
    nn.init.zeros_(alone.encoder.transformer.blocks[0].self_attention.sublayer.out.weight)
    other = x.clone()
    other[:, :, 2, 3] += 1
    changed = (alone(x) != alone(other)).any(1)
    assert changed[:, 2, 3].all() and int(changed.sum()) == len(x)


def test_another_size_that_patches_do_not_divide():
    model, picture = small(position="learned"), pictures(20, 30)
    model.preprocess = None
    expected = model(picture)  # positions by interpolation, at each pass
    resize(model, (20, 30))
    assert model.image_size == (20, 30) and model.encoder.image_size == (24, 32)
    torch.testing.assert_close(model(picture), expected)
    with torch.no_grad():
        again = segmenter_tiny(4, 8, (20, 30), dim=24, depth=2, heads=2, position="learned")
    again.load_state_dict(model.state_dict())
