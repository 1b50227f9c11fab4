"""Faster R-CNN and RetinaNet find, and learn from, what torchvision's own classes do."""

from __future__ import annotations

import copy

import pytest
import torch
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

import family
from family.heads.detection import postprocess
from family.losses.boxes import to_corners
from family.models.member import build, describe

CLASSES = 3
NAMES = ("FasterRCNN", "RetinaNet")
SIZES = [(64, 96), (48, 64)]
"""Of the two pictures of a batch; the smaller one has padding at both sides."""


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(name, **options):
    """A detector that is sure enough of things to find some, and not the same in each picture."""
    own = {"stages": [2, 3]}
    if name == "FasterRCNN":
        own = {"stages": [1, 2, 3], "hidden": 24, "proposals": 40, "samples": 32}
    options = {"channels": 16, "anchor_size": 12, "width": 8, **own, **options}
    model = getattr(family, name)(CLASSES, "resnet10t", **options)
    last = model.net.roi_heads.box_predictor if name == "FasterRCNN" else model.net.head
    for parameter in last.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def theirs(model):
    """The same weights in torchvision's class, told not to normalise or to resize in training."""
    backbone = copy.deepcopy(model.net.backbone)
    given = {
        "image_mean": [0.0] * 3, "image_std": [1.0] * 3, "_skip_resize": True, "size_divisible": 16,
        "max_size": 10_000,
    }  # fmt: skip
    ratios = (0.5, 1.0, 2.0)
    if isinstance(model, family.FasterRCNN):
        net = detection.FasterRCNN(
            backbone,
            rpn_anchor_generator=AnchorGenerator(((12,), (24,), (48,), (96,)), (ratios,) * 4),
            box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 7, 2, canonical_scale=84),
            box_head=TwoMLPHead(16 * 49, 24),
            box_predictor=FastRCNNPredictor(24, 1 + CLASSES),
            rpn_post_nms_top_n_train=80,
            rpn_post_nms_top_n_test=40,
            box_batch_size_per_image=32,
            **given,
        )
    else:
        sizes = ((12, 15, 19), (24, 30, 38), (48, 60, 76), (96, 120, 152))
        anchors = AnchorGenerator(sizes, (ratios,) * 4)
        options = {"anchor_generator": anchors, "detections_per_img": 100}
        net = detection.RetinaNet(backbone, CLASSES, **options, **given)
    net.load_state_dict(model.net.state_dict())
    return net


def batch():
    """Two pictures, padded with what no picture has, their mask and their targets."""
    pictures = [torch.randn(3, *size) for size in SIZES]
    pixels, mask = torch.full((2, 3, 64, 96), 9.0), torch.zeros(2, 64, 96, dtype=torch.bool)
    for i, (height, width) in enumerate(SIZES):
        pixels[i, :, :height, :width], mask[i, :height, :width] = pictures[i], True
    boxes = torch.tensor([[0.5, 0.5, 0.3, 0.4], [0.3, 0.7, 0.2, 0.3]])
    targets = [
        {"labels": torch.tensor([0, 2]), "boxes": boxes},
        {"labels": torch.tensor([1]), "boxes": boxes[:1]},
    ]
    return pictures, pixels, mask, targets


@pytest.mark.parametrize("name", NAMES)
def test_finds_what_torchvision_finds_in_each_picture_alone(name):
    model = small(name).eval()
    pictures, pixels, mask, _ = batch()
    with torch.no_grad():
        outputs = model(pixels, mask)
        found = postprocess(outputs, SIZES, model.classification)
        net = theirs(model).eval()
        for ours, picture in zip(found, pictures, strict=True):
            net.transform.min_size = (min(picture.shape[1:]),)  # so that nothing is resized
            (wanted,) = net([picture])
            assert len(wanted["scores"]) > 3
            wanted["labels"] -= 1 if name == "FasterRCNN" else 0
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
    assert (outputs["logits"].isfinite().sum(-1) <= 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_torchvisions(name):
    model = small(name).train()
    pictures, pixels, mask, targets = batch()
    wanted = []
    for target, (height, width) in zip(targets, SIZES, strict=True):
        boxes = to_corners(target["boxes"]) * torch.tensor([width, height, width, height])
        wanted.append({"boxes": boxes, "labels": target["labels"] + (name == "FasterRCNN")})
    net = theirs(model).train()
    torch.manual_seed(1)
    expected = net(pictures, wanted)
    torch.manual_seed(1)
    terms = model.losses(pixels, mask, targets)
    torch.testing.assert_close(terms, dict(expected))
    assert len(terms) == (4 if name == "FasterRCNN" else 2)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_find_and_nothing_found(name):
    model = small(name, score_threshold=0.999)
    _, pixels, _, targets = batch()
    nothing = {"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4)}
    flat = {"labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.0]])}
    for given in ([targets[0], nothing], [nothing, nothing], [flat, nothing]):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            terms = model.train().losses(pixels, None, given)
        sum(terms.values()).backward()
        assert all(term.isfinite() for term in terms.values())
        assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    outputs = model.eval()(pixels)
    assert outputs["logits"].shape == (2, 0, CLASSES)
    for found in postprocess(outputs, [(64, 96)] * 2, "focal"):
        assert {name: len(value) for name, value in found.items()} == {
            "scores": 0, "labels": 0, "boxes": 0,
        }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_arguments_build_it_again_and_bad_ones_are_named(name):
    model = small(name)
    again = build(type(model), describe(model)["arguments"])
    again.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="stages=.3, 9.: 'resnet10t' has fewer feature maps"):
        small(name, stages=[3, 9])
    with pytest.raises(ValueError, match="stages=.3, 2. are to be given from fine to coarse"):
        getattr(family, name)(3, stages=[3, 2])
    with pytest.raises(ValueError, match="'resnett18' is not a model of timm"):
        getattr(family, name)(CLASSES, "resnett18")
    _, pixels, mask, targets = batch()
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        model(pixels, mask)
    with pytest.raises(ValueError, match="label 7 is outside 0..2"):
        model.losses(pixels, mask, [targets[1], {**targets[1], "labels": torch.tensor([7])}])
    with pytest.raises(ValueError, match=r"call train\(\) first"):
        model.eval().losses(pixels, mask, targets)
