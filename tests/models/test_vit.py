"""ViT and the embedding of patches: positions, picture sizes, stems, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from family.core.config import TransformerConfig
from family.core.rotary import Rotary, apply_rotary
from family.core.transformer import Transformer
from family.heads.classifier import PoolConfig
from family.inputs.patches import PatchConfig, PatchEmbedding
from family.look import record_attention
from family.models.vit import ViT, vit_base, vit_small, vit_tiny


def small(**overrides) -> ViT:
    torch.manual_seed(0)
    model = vit_tiny(5, 8, (32, 24), **{"dim": 24, "depth": 2, "heads": 2, **overrides})
    for parameter in model.parameters():  # off the zeros and ones of initialisation
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def pictures(height=32, width=24) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("build", "million"), [(vit_tiny, 5.717), (vit_small, 22.051), (vit_base, 86.568)]
)
def test_published_sizes(build, million):
    count = sum(p.numel() for p in build().parameters()) / 1e6
    assert count == pytest.approx(million, abs=1e-3)


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "none"])
@pytest.mark.parametrize("pool", ["class", "mean", "attention"])
def test_shapes_of_any_picture_and_a_gradient_for_every_parameter(position, pool):
    model = small(position=position, pool=pool, register_tokens=3)
    assert model.image_size == (32, 24) and model.patch_size == (8, 8)
    for size, patches in (((32, 24), 12), ((48, 16), 12), ((8, 40), 5)):
        features = model.forward_features(pictures(*size))
        assert features.shape == (2, 4 + patches, 24)
        assert model.forward_head(features).shape == (2, 5)
        assert model.forward_head(features, pre_logits=True).shape == (2, 24)
    model(pictures()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_without_classes_gives_pooled_features():
    model = small(position="learned")
    features = model.forward_features(pictures())
    expected = model.forward_head(features, pre_logits=True)
    model.head = nn.Identity()
    bare = ViT(0, model.config, (32, 24), 8).eval()
    bare.load_state_dict(model.state_dict())
    assert torch.equal(bare(pictures()), expected)


def test_mean_and_attention_leave_prefix_tokens_out():
    for pool in ("mean", "attention"):
        model = small(pool=pool, register_tokens=2)
        features = torch.randn(2, 3 + 12, 24)
        changed = features.clone()
        changed[:, :3] += 1
        assert torch.equal(model.forward_head(features), model.forward_head(changed))


def test_a_new_head_finds_all_classes_equally_likely():
    assert torch.equal(vit_tiny(5, 8, 32, dim=24, depth=1)(pictures(32, 32)), torch.zeros(2, 5))


def test_patches_are_read_row_by_row():
    config = TransformerConfig(dim=8, heads=1)
    patches = PatchConfig(channels=1, class_token=False, bias=False)
    embedding = PatchEmbedding(config, (4, 6), 2, patches)
    x = torch.randn(1, 1, 4, 6)
    weight = embedding.projection.weight.flatten(1)
    tokens = [
        weight @ x[0, :, row : row + 2, column : column + 2].flatten()
        for row in (0, 2)
        for column in (0, 2, 4)
    ]
    torch.testing.assert_close(embedding(x)[0], torch.stack(tokens))


def test_sinusoids_give_half_of_the_channels_to_rows_and_half_to_columns():
    config = TransformerConfig(dim=16, heads=1, position="sinusoidal")
    embedding = PatchEmbedding(config, (6, 8), 2)
    tokens = embedding(torch.zeros(1, 3, 6, 8))[0]
    torch.testing.assert_close(tokens[0], embedding.prefix.weight[0])  # nothing on the class token
    grid = tokens[1:].unflatten(0, (3, 4))
    rows, columns = grid[..., :8], grid[..., 8:]
    assert torch.equal(rows[:, 0], rows[:, 3]) and not torch.equal(rows[0], rows[1])
    assert torch.equal(columns[0], columns[2]) and not torch.equal(columns[:, 0], columns[:, 1])
    second = torch.tensor(2.0)
    torch.testing.assert_close(rows[2, 0, [0, 4]], torch.stack([second.sin(), second.cos()]))
    torch.testing.assert_close(columns[0, 2], rows[2, 0])


def test_a_resized_table_leaves_prefix_rows_and_constants_alone():
    config = TransformerConfig(dim=8, heads=1, position="learned")
    embedding = PatchEmbedding(config, (6, 8), 2, PatchConfig(register_tokens=1))
    with torch.no_grad():
        embedding.position.weight[2:] = 3.0
    wanted = embedding.prefix.weight + embedding.position.weight[:2]
    tokens = embedding(torch.zeros(1, 3, 10, 4))[0]
    torch.testing.assert_close(tokens[:2], wanted)
    torch.testing.assert_close(tokens[2:], torch.full((10, 8), 3.0))


def test_prefix_tokens_stand_at_coordinates_zero():
    coordinates = small(position="rotary", register_tokens=1).embedding.coordinates(16, 24)
    expected = [[0, 0], [0, 0], [0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert coordinates.tolist() == expected


def test_centres_of_patches_on_one_scale_for_all_sizes():
    embedding = small(position="rotary", coordinates="centre").embedding
    coordinates = embedding.coordinates(16, 32)
    assert coordinates[0].tolist() == [0, 0]  # the class token does not turn
    expected = [[y, x] for y in (-0.5, 0.5) for x in (-0.75, -0.25, 0.25, 0.75)]
    torch.testing.assert_close(coordinates[1:], 2 * torch.pi * torch.tensor(expected))
    torch.testing.assert_close(embedding.coordinates(32, 16)[1:], coordinates[1:].flip(1)[ORDER])


ORDER = [0, 4, 1, 5, 2, 6, 3, 7]
"""A grid of 2 x 4 read column by column."""


def rotary_scores(coordinates: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    queries, keys = torch.randn(
        2, 1, 1, len(coordinates), 24, generator=generator, dtype=torch.float64
    )
    turn = Rotary(24, axes=2)(coordinates, torch.float64)
    return apply_rotary(queries, turn) @ apply_rotary(keys, turn).transpose(-1, -2)


def test_rotary_scores_depend_on_the_difference_along_every_axis():
    coordinates = torch.tensor([[0, 0], [0, 1], [1, 0], [3, 2]])
    scores = rotary_scores(coordinates)
    torch.testing.assert_close(rotary_scores(coordinates + torch.tensor([5, 9])), scores)
    for axis in (0, 1):
        moved = coordinates.clone()
        moved[3, axis] += 1
        changed = (rotary_scores(moved) - scores).abs() > 1e-3
        assert changed[..., 3, :3].all() and changed[..., :3, 3].all()
        assert not changed[..., :3, :3].any()


def test_rotary_of_one_axis_is_as_before_and_batches_may_differ():
    one = Rotary(8)(torch.arange(5), torch.float32)
    two = Rotary(16, axes=2)(torch.stack([torch.arange(5)] * 2, -1), torch.float32)
    for single, double in zip(one, two, strict=True):
        # Each axis turns the channels as a head of half the width would.
        torch.testing.assert_close(double[:, :4], single[:, :4])
        torch.testing.assert_close(double[:, 4:8], single[:, :4])
    batch = Rotary(16, axes=2)(torch.zeros(3, 5, 2), torch.float32)
    assert batch[0].shape == (3, 1, 5, 16)


def test_rotary_vit_tells_rows_from_columns():
    model = small(position="rotary")
    assert model.config.rotary_axes == 2
    x = pictures(24, 24)
    with record_attention(model) as maps:
        model(x)
        model(x.roll(8, 2))
        model(x.roll(8, 3))
    plain, down, across = next(iter(maps.values()))
    grid = torch.arange(9).view(3, 3)
    for rolled, axis in ((down, 0), (across, 1)):
        order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + grid.roll(1, axis).flatten()])
        # The same patches elsewhere: only positions can make a difference.
        assert not torch.allclose(rolled, plain[..., order, :][..., order], atol=1e-3)


@pytest.mark.parametrize("patch", [2, 4, 16])
def test_convolutional_stem_comes_down_to_the_patch(patch):
    model = vit_tiny(5, patch, (32, 48), dim=24, depth=1, heads=2, stem="conv")
    assert model.forward_features(torch.randn(2, 3, 32, 48)).shape[1] == 1 + 32 * 48 // patch**2
    convolutions = [m for m in model.embedding.stem if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == patch.bit_length() - 1
    assert convolutions[-1].out_channels == 24
    nn.init.normal_(model.head.weight)
    model(torch.randn(2, 3, 32, 48)).square().sum().backward()
    assert all(c.weight.grad.abs().sum() > 0 for c in convolutions)


def config(**fields) -> TransformerConfig:
    return TransformerConfig(**{"dim": 24, "heads": 2, "depth": 1, **fields})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ViT(5, config(), 30, 8), "a picture of 30 x 30 pixels does not divide"),
        (lambda: ViT(5, config(), 32, 8)(pictures(32, 20)), "32 x 20 pixels does not divide"),
        (lambda: ViT(5, config(), 32, 8)(torch.zeros(1, 1, 32, 32)), "1 channels, but .* takes 3"),
        (
            lambda: ViT(5, config(), 32, 8, patches=PatchConfig(class_token=False)),
            "pooling.kind='class' needs patches.class_token=True",
        ),
        (lambda: PoolConfig(kind="max"), "pooling.kind='max' is unknown"),
        (lambda: PatchConfig(stem="cnn"), "stem='cnn' is unknown"),
        (lambda: PatchConfig(channels=0), "channels must be at least 1, not 0"),
        (lambda: small(coordinates="pixel"), "coordinates='pixel' is unknown; choose .* centre"),
        (
            lambda: ViT(5, config(), 36, 12, patches=PatchConfig(stem="conv")),
            "patch_size must be 2, 4, 8",
        ),
        (lambda: ViT(5, config(), (32, 32, 3), 8), r"positive number or \(height, width\)"),
        (lambda: ViT(5, config(position="alibi"), 32, 8), "position='alibi' is for sequences"),
        (lambda: ViT(5, config(dim=18, position="sinusoidal"), 32, 8), "divides by 4, not 18"),
        (lambda: ViT(5, config(dim=20, position="rotary"), 32, 8), "divides by 4, not 10"),
        (lambda: config(position="rotary", rotary_axes=0), "rotary_axes must be at least 1"),
        (
            lambda: Transformer(config(position="rotary", rotary_axes=2))(torch.zeros(1, 3, 24)),
            r"rotary_axes=2 needs positions \(tokens, 2\), not None",
        ),
        (
            lambda: Rotary(8, axes=2)(torch.arange(3), torch.float32),
            r"needs positions \(\.\.\., tokens, 2\), not \(3,\)",
        ),
    ],
)
def test_one_sentence_for_what_cannot_be(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
