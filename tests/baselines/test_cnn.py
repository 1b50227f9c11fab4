"""CNNs compute what timm's networks compute, also as a tower of CLIP."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import family
from family.core.config import TransformerConfig
from family.models.member import build, describe
from tasks.runs.checkpoints import build_model

CLASSES = 5


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "mobilenetv3_small_050"])
def test_as_timm(name):
    model = family.CNN(CLASSES, name).eval()
    theirs = timm.create_model(name, num_classes=CLASSES).eval()
    theirs.load_state_dict(model.net.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(pixels), theirs(pixels), rtol=0, atol=0)


def test_small_pictures_keep_their_size_until_the_second_stage():
    model = family.CNN(10, "resnet18", small=True)
    assert count(model) == 11_173_962  # of the ResNet-18 for CIFAR-10 that everyone trains
    stem, pool = model.net.conv1, model.net.maxpool
    assert (stem.kernel_size, stem.stride) == ((3, 3), (1, 1))
    assert isinstance(pool, nn.Identity)
    shapes = []
    for stage in (model.net.layer1, model.net.layer4):
        stage.register_forward_hook(lambda *call: shapes.append(tuple(call[-1].shape[1:])))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert shapes == [(64, 32, 32), (512, 4, 4)]


@pytest.mark.parametrize("name", ["resnet10t", "resnet18", "resnet50"])
def test_width_and_layers_scale_a_resnet(name):
    options = {"small": True, "layers": [1, 2, 1, 1]}
    narrow, wide = (family.CNN(CLASSES, name, width=w, **options) for w in (9, 32))
    assert 6 < count(wide) / count(narrow) < 14  # (32 / 9) ** 2 is 12.6
    assert len(wide.net.layer2) == 2
    assert (wide.net.conv1.out_channels, narrow.net.conv1.out_channels) == (32, 10)
    for model in (narrow, wide):
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, CLASSES)
    again = build(family.CNN, describe(wide)["arguments"])
    again.load_state_dict(wide.state_dict())


def test_bad_options_are_named():
    for options, message in (
        ({"name": "resnett18"}, "name='resnett18' is not a model of timm. Did you mean 'resn"),
        ({"name": "test_convnext", "small": True}, "small=True is for a ResNet of timm, and name="),
        ({"name": "test_convnext", "width": 8}, "width=8 is for a ResNet of timm, and 'test_conv"),
        ({"name": "test_vit", "layers": [1]}, "layers=.1. is for a ResNet"),
        ({"layers": [1, 1]}, "layers=.1, 1. needs the blocks of each of four stages"),
        ({"width": 7}, "width=7 is too narrow"),
        ({"name": "resnext50_32x4d", "width": 12}, "width=12 is too narrow for the groups"),
        ({"name": "vgg11", "drop_path": 0.1}, "drop_path=0.1: 'vgg11' has no residual branches"),
        ({"pretrained": True, "small": True}, "small=True leaves a network that no published"),
        ({"pretrained": True, "layers": [1, 1, 1, 1]}, "layers=.1, 1, 1, 1. leaves"),
        ({"pretrained": True, "width": 16}, "width=16 fits no published weights"),
    ):
        with pytest.raises(ValueError, match=message):
            family.CNN(CLASSES, **options)


def test_a_tower_of_clip(tmp_path):
    stack = TransformerConfig(dim=16, depth=1, heads=2, position="learned", max_tokens=8)
    model = family.CLIP(20, "test_resnet", stack, embed_dim=12).eval()
    theirs = timm.create_model("test_resnet", num_classes=12).eval()
    theirs.load_state_dict(model.image.state_dict())
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.encode_image(pixels), theirs(pixels), rtol=0, atol=0)
    family.save_pretrained(model, tmp_path / "ours")
    again = family.from_pretrained(str(tmp_path / "ours"))
    assert torch.equal(again.encode_image(pixels), model.encode_image(pixels))
    for name in ("clip", "siglip"):
        with pytest.raises(
            ValueError, match=f"format='{name}' has a field for image.dim, which this CLIP has not"
        ):
            family.save_pretrained(model, tmp_path / name, name)
    with pytest.raises(ValueError, match="image='resnett18' is not a model of timm"):
        family.CLIP(20, "resnett18", stack)
    with pytest.raises(ValueError, match="image='test_vit' takes pictures of one size alone"):
        family.CLIP(20, "test_vit", stack)
    small = family.clip_small(50, image="test_resnet", text_depth=1)
    assert isinstance(small.image, timm.models.ResNet)


def test_a_checkpoint_of_published_weights_fetches_nothing(monkeypatch):
    def create(name, pretrained=False, **options):
        assert not pretrained
        return made(name, **options)

    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", create)
    options = {"name": "test_resnet", "pretrained": True}
    model = build_model({"class_path": "family.CNN", "init_args": options}, {"num_classes": 3})
    assert model.num_classes == 3
