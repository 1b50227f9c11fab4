"""FCN and DeepLab compute what torchvision's heads compute on the same network."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torchvision.models import segmentation
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

import family
from family.models.member import build, describe

CLASSES = 4


class Body(nn.Module):
    """A network of timm as torchvision's models ask for one."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        options = {"features_only": True, "out_indices": (-1,), "output_stride": stride}
        self.net = timm.create_model("resnet10t", **options)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.net(x)[0]}


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", ["FCN", "DeepLab"])
def test_as_torchvision(name, stride):
    torch.manual_seed(0)
    model = getattr(family, name)(CLASSES, "resnet10t", output_stride=stride).eval()
    if name == "FCN":
        theirs = segmentation.FCN(Body(stride), FCNHead(512, CLASSES))
    else:
        # Chen et al. 2017, section 4.1: the rates at a stride of 16 are doubled at one of 8.
        rates = (12, 24, 36) if stride == 8 else (6, 12, 18)
        theirs = segmentation.DeepLabV3(Body(stride), DeepLabHead(512, CLASSES, rates))
    theirs.load_state_dict(model.net.state_dict())
    pixels = torch.randn(2, 3, 50, 64)
    logits = model(pixels)
    assert logits.shape == (2, CLASSES, 50, 64)
    torch.testing.assert_close(logits, theirs.eval()(pixels)["out"], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["FCN", "DeepLab"])
def test_a_step_and_a_narrow_one(name):
    torch.manual_seed(0)
    options = {"rates": [1, 2]} if name == "DeepLab" else {}
    model = getattr(family, name)(CLASSES, "resnet10t", width=8, **options)
    model(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.net.backbone.channels == 64
    again = build(type(model), describe(model)["arguments"])
    again.load_state_dict(model.state_dict())


def test_bad_options_are_named():
    for options, message in (
        ({"output_stride": 4}, "output_stride=4 is unknown; choose one of: 8, 16, 32"),
        ({"backbone": "resnett18"}, "backbone='resnett18' is not a model of timm"),
        ({"backbone": "vgg11"}, "output_stride=8: 'vgg11' cannot dilate"),
    ):
        with pytest.raises(ValueError, match=message):
            family.FCN(CLASSES, **options)


def test_one_picture_is_no_batch_for_deeplab():
    model = family.DeepLab(3, "test_resnet", output_stride=16).train()
    with pytest.raises(ValueError, match="two pictures or more"):
        model(torch.randn(1, 3, 32, 32))
    assert model.eval()(torch.randn(1, 3, 32, 32)).shape == (1, 3, 32, 32)
