"""What DETR promises beyond parity: its options, padding, frozen backbones, bad input."""

from __future__ import annotations

import pytest
import torch

from family.core.config import TransformerConfig
from family.heads.detection import postprocess
from family.inputs.backbone import CNNBackbone
from family.inputs.sine import sine_positions
from family.losses.boxes import generalized_iou, to_corners
from family.losses.set_matching import NEGATIVE, PADDING, SetLoss
from family.models.detr import DETR, detr_small
from family.models.detr_queries import Denoising, denoising_mask

CLASSES, QUERIES = 3, 9
OPTIONS = {
    "plain": {"anchors": False, "denoising": 0, "two_stage": False},
    "anchors": {"denoising": 0, "two_stage": False},
    "denoising": {"denoising": 12, "two_stage": False},
    "two_stage": {"denoising": 0},
    "all": {"denoising": 12},
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def small(option="all", **overrides):
    fields = {
        "dim": 32, "depth": 2, "heads": 4, "ffn_dim": 48, "queries": QUERIES, "dropout": 0.0,
        "backbone": "patch", "patch_size": 8, **OPTIONS[option], **overrides,
    }  # fmt: skip
    return detr_small(CLASSES, **fields)


def objects(*counts):
    return [
        {"labels": torch.randint(0, CLASSES, (n,)), "boxes": torch.rand(n, 4) / 3 + 0.3}
        for n in counts
    ]


def shaken(model):
    """Every parameter moved, since some begin as zeros."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("classification", ["softmax", "focal"])
@pytest.mark.parametrize("option", OPTIONS)
def test_contract_and_a_step(option, classification):
    model = small(option, classification=classification, decoder_depth=3)
    pixels, targets = torch.randn(2, 3, 40, 48), objects(3, 0)
    classes = CLASSES + (classification == "softmax")
    outputs = model.train()(pixels, None, targets)
    assert len(outputs["aux"]) == 2
    for layer in (outputs, *outputs["aux"]):
        assert layer["logits"].shape == (2, QUERIES, classes)
        assert layer["boxes"].shape == (2, QUERIES, 4)
        assert ((layer["boxes"] > 0) & (layer["boxes"] < 1)).all()
    assert ("denoising" in outputs) == (option in ("denoising", "all"))
    assert ("proposals" in outputs) == (option in ("two_stage", "all"))
    loss = SetLoss(classification)
    loss.total(loss(outputs, targets)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.eval()(pixels).keys() == {"logits", "boxes"}


@pytest.mark.parametrize("option", ["plain", "anchors", "all"])
def test_padding_changes_nothing(option):
    """Sizes that are no multiples of a patch; a small picture has fewer cells than queries."""
    model = shaken(small(option, queries=20)).eval()
    pictures = [torch.randn(3, 50, 61), torch.randn(3, 27, 37)]
    pixels, mask = torch.randn(2, 3, 50, 61), torch.zeros(2, 50, 61, dtype=torch.bool)
    for i, picture in enumerate(pictures):
        pixels[i, :, : picture.shape[1], : picture.shape[2]] = picture
        mask[i, : picture.shape[1], : picture.shape[2]] = True
    pixels = pixels * mask[:, None]
    together = model(pixels, mask)
    for i, picture in enumerate(pictures):
        alone = model(picture[None])
        for name in ("logits", "boxes"):
            torch.testing.assert_close(together[name][i], alone[name][0], atol=1e-5, rtol=1e-4)


def test_batch_size_changes_nothing():
    model = shaken(small(backbone="test_resnet")).eval()
    pixels = torch.randn(3, 3, 64, 64)
    together = model(pixels)
    alone = torch.cat([model(picture[None])["boxes"] for picture in pixels])
    torch.testing.assert_close(together["boxes"], alone, atol=1e-5, rtol=1e-4)


def test_sine_positions_of_a_padded_map_are_its_own():
    mask = torch.zeros(1, 6, 7, dtype=torch.bool)
    mask[:, :4, :5] = True
    padded = sine_positions(mask, 16).unflatten(1, (6, 7))[:, :4, :5].flatten(1, 2)
    whole = sine_positions(torch.ones(1, 4, 5, dtype=torch.bool), 16)
    torch.testing.assert_close(padded, whole)
    assert len(whole[0].unique(dim=0)) == 20


def test_anchors_are_where_boxes_begin():
    """Heads that correct begin as zeros: every layer returns the anchors."""
    model = small("anchors").train()
    outputs = model(torch.randn(2, 3, 40, 48))
    for layer in (outputs, *outputs["aux"]):
        torch.testing.assert_close(layer["boxes"], model.queries.boxes.sigmoid().expand(2, -1, -1))


def test_each_layer_refines_the_boxes_of_the_one_before():
    model = small("anchors", decoder_depth=3).train()
    torch.nn.init.constant_(model.head.box[-1].bias, 0.5)
    outputs = model(torch.randn(2, 3, 40, 48))
    for i, layer in enumerate([*outputs["aux"], outputs]):
        expected = (model.queries.boxes + 0.5 * (i + 1)).sigmoid().expand(2, -1, -1)
        torch.testing.assert_close(layer["boxes"], expected)
    # No gradient flows from one layer's boxes to those before.
    (gradient,) = torch.autograd.grad(outputs["boxes"].sum(), model.queries.boxes)
    assert not gradient.any()


def test_two_stage_begins_at_the_likeliest_cells():
    model = small("two_stage", queries=2).eval()
    seen = {}

    def likeliest(module, inputs, output):
        output[...] = -5.0
        output[0, 7, 1], output[0, 22, 0] = 3.0, 2.0

    def keep(module, inputs, output):
        seen["boxes"] = output[1].sigmoid()

    model.proposals.head.classes.register_forward_hook(likeliest)
    model.proposals.register_forward_hook(keep)
    boxes = model(torch.randn(1, 3, 40, 48))["boxes"]  # 5 x 6 cells
    centres = torch.tensor([[1.5 / 6, 1.5 / 5], [4.5 / 6, 3.5 / 5]])
    torch.testing.assert_close(seen["boxes"][0, :, :2], centres, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(boxes, seen["boxes"])


def test_denoising_does_not_tell_the_answer():
    model = shaken(small("denoising")).train()
    pixels = torch.randn(2, 3, 40, 48)
    without, given = model(pixels), model(pixels, None, objects(3, 1))
    torch.testing.assert_close(given["logits"], without["logits"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(given["boxes"], without["boxes"], atol=1e-5, rtol=1e-4)


def test_denoising_mask():
    ids = torch.tensor([[0, NEGATIVE, 0, NEGATIVE], [0, PADDING, 0, PADDING]])
    mask = denoising_mask(ids, groups=2, queries=3)
    assert mask.shape == (2, 7, 7)
    assert mask[:, :, :3].all()
    assert not mask[:, :3, 3:].any()
    own = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()
    assert torch.equal(mask[0, 3:, 3:], own)
    assert torch.equal(mask[1, 3:, 3:], own & torch.tensor([True, False, True, False]))


def test_noise():
    """Moved a little they overlap their target more than moved far; some labels are flipped."""
    denoising, targets = Denoising(CLASSES, 16, 600), objects(6, 2)
    noised = denoising(targets)
    assert noised.groups == 50
    assert noised.target_ids.shape == (2, 600)
    ids = noised.target_ids.view(2, 50, 2, 6)
    assert torch.equal(ids[0, 7, 0], torch.arange(6))
    assert (ids[:, :, 1][0] == NEGATIVE).all()
    assert (ids[1, :, :, 2:] == PADDING).all()
    boxes = to_corners(noised.anchors.sigmoid()).view(2, 50, 2, 6, 4)[0]
    overlap = generalized_iou(boxes, to_corners(targets[0]["boxes"])).mean((0, 2))
    assert overlap[0] > overlap[1] + 0.2
    told = noised.content.view(2, 50, 2, 6, 16)[0]
    right = (told == denoising.labels(targets[0]["labels"])).all(-1).float().mean()
    assert 0.7 < right < 0.95
    nothing = denoising(objects(0, 0))
    assert (nothing.target_ids == PADDING).all()


def test_frozen_norm_and_freeze():
    backbone = CNNBackbone("test_resnet", freeze=["conv1", "layer1"]).train()
    assert backbone.net.layer2[0].conv1.weight.requires_grad
    assert not backbone.net.layer1[0].conv1.weight.requires_grad
    assert not backbone.net.layer2[0].bn1.weight.requires_grad
    before = backbone.net.bn1.running_mean.clone()
    backbone(torch.randn(2, 3, 32, 32))
    assert torch.equal(backbone.net.bn1.running_mean, before)
    learning = CNNBackbone("test_resnet", frozen_norm=False).train()
    learning(torch.randn(2, 3, 32, 32))
    assert not torch.equal(learning.net.bn1.running_mean, before)
    frozen = CNNBackbone("test_resnet", frozen_norm=False, freeze="all").train()
    features, _ = frozen(torch.randn(2, 3, 32, 32))
    assert not features.requires_grad
    assert torch.equal(frozen.net.bn1.running_mean, before)


def test_stage_and_mask_of_the_backbone():
    backbone = CNNBackbone("test_resnet", stage=-2)
    mask = torch.zeros(2, 64, 96, dtype=torch.bool)
    mask[0], mask[1, :40, :50] = True, True
    features, cells = backbone(torch.randn(2, 3, 64, 96), mask)
    assert features.shape == (2, backbone.channels, 64 // backbone.stride, 96 // backbone.stride)
    assert (backbone.stride, backbone.channels) == (16, 192)
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[:3, :4] = True
    assert torch.equal(cells[1], expected)


@pytest.mark.parametrize("option", ["plain", "all"])
def test_bfloat16_training(option):
    model, targets = small(option, backbone="test_resnet").train(), objects(2, 1)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(torch.randn(2, 3, 64, 64), None, targets)
        terms = SetLoss("focal")(outputs, targets)
    assert outputs["boxes"].dtype == torch.float32
    assert {term.dtype for term in terms.values()} == {torch.float32}
    SetLoss("focal").total(terms).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.slow
def test_one_batch_is_learned_by_heart():
    model, loss, targets = small().train(), SetLoss("focal"), objects(2, 1)
    pixels = torch.randn(2, 3, 32, 32)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(400):
        optimizer.zero_grad()
        loss.total(loss(model(pixels, None, targets), targets)).backward()
        optimizer.step()
    found = postprocess(model.eval()(pixels), [(1, 1), (1, 1)], "focal", top=2)
    for one, target in zip(found, targets, strict=True):
        wanted = to_corners(target["boxes"])
        best = generalized_iou(one["boxes"][:, None], wanted).max(1)
        n = len(wanted)
        assert best.values[:n].min() > 0.6
        assert torch.equal(one["labels"][:n], target["labels"][best.indices[:n]])


def test_postprocess():
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.5, 0.4, 0.2]]])
    probabilities = torch.tensor([[[0.1, 0.2, 0.7], [0.3, 0.6, 0.1]]])
    outputs = {"logits": probabilities.log(), "boxes": boxes}
    (found,) = postprocess(outputs, [(100, 200)])
    torch.testing.assert_close(found["scores"], torch.tensor([0.6, 0.2]))
    assert found["labels"].tolist() == [1, 1]  # the last class is "no object"
    corners = torch.tensor([[0.0, 40, 60, 60], [80, 30, 120, 70]])
    torch.testing.assert_close(found["boxes"], corners)
    outputs["logits"] = probabilities.logit()
    (found,) = postprocess(outputs, torch.tensor([[100, 200]]), "focal", top=3)
    torch.testing.assert_close(found["scores"], torch.tensor([0.7, 0.6, 0.3]))
    assert found["labels"].tolist() == [2, 1, 0]
    torch.testing.assert_close(found["boxes"], corners[[1, 0, 0]])
    with pytest.raises(ValueError, match="sizes has 2 entries for 1 pictures"):
        postprocess(outputs, [(1, 1), (1, 1)])


def test_bad_input_is_named():
    config = TransformerConfig(dim=32, heads=4, depth=1)
    with pytest.raises(ValueError, match="two_stage=True .* needs anchors=True"):
        DETR(3, config, "patch", two_stage=True)
    with pytest.raises(ValueError, match="denoising=5 .* needs anchors=True"):
        DETR(3, config, "patch", denoising=5)
    with pytest.raises(ValueError, match="classification='sigmoid' is unknown"):
        DETR(3, config, "patch", classification="sigmoid")
    with pytest.raises(ValueError, match="position='none'"):
        DETR(3, config.replace(position="rotary"), "patch")
    with pytest.raises(ValueError, match="'resnett18' is not a model of timm. Did you mean 'resn"):
        CNNBackbone("resnett18")
    with pytest.raises(ValueError, match="stage=9: 'test_resnet' has fewer"):
        CNNBackbone("test_resnet", stage=9)
    with pytest.raises(ValueError, match="freeze='stem': no parameter"):
        CNNBackbone("test_resnet", freeze=["stem"])
    model = small("denoising").train()
    with pytest.raises(ValueError, match="label 3 is outside 0..2"):
        model(
            torch.randn(1, 3, 32, 32),
            None,
            [{"labels": torch.tensor([3]), "boxes": torch.rand(1, 4)}],
        )


def test_a_vit_of_timm_as_backbone():
    """Its features are one map; pictures of any size that divides into patches."""
    torch.manual_seed(0)
    backbone = CNNBackbone(
        "vit_tiny_patch16_224", frozen_norm=False, dynamic_img_size=True, embed_dim=24, depth=1,
        num_heads=2,
    )  # fmt: skip
    config = TransformerConfig(dim=16, depth=1, heads=2, ffn_dim=32)
    model = DETR(3, config, backbone=backbone, queries=5)
    outputs = model(torch.randn(2, 3, 64, 96))
    assert outputs["boxes"].shape == (2, 5, 4)
    outputs["logits"].square().sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())
