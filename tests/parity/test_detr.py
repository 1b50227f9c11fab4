"""DETR against transformers, with the same random weights, in float64."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import family
from family.losses.set_matching import SetLoss

sys.path.insert(0, str(Path(__file__).parent))
import peers
import peers_detr

transformers = pytest.importorskip("transformers")

CLASSES, TOLERANCE = 7, 1e-9


@pytest.fixture(scope="module")
def pair():
    config = transformers.DetrConfig(
        backbone="test_resnet", num_labels=CLASSES, num_queries=11, d_model=32, encoder_layers=2,
        decoder_layers=3, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=48, decoder_ffn_dim=48, dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    theirs = transformers.DetrForObjectDetection(config).double().train()
    peers.randomise(theirs)
    peers_detr.randomise_backbone(theirs.model.backbone)
    return family.from_pretrained(theirs).train(), theirs


def batch():
    """Two pictures of unequal size in one batch."""
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randn(2, 3, 96, 130, generator=generator, dtype=torch.float64)
    mask = torch.ones(2, 96, 130, dtype=torch.bool)
    mask[1, 70:] = mask[1, :, 100:] = False
    return pixels * mask[:, None], mask


def objects():
    generator = torch.Generator().manual_seed(3)
    counts = (4, 2)
    boxes = [torch.rand(n, 4, generator=generator, dtype=torch.float64) / 2 + 0.2 for n in counts]
    labels = [torch.randint(0, CLASSES, (n,), generator=generator) for n in counts]
    ours = [{"labels": one, "boxes": box} for one, box in zip(labels, boxes, strict=True)]
    return ours, [{"class_labels": one["labels"], "boxes": one["boxes"]} for one in ours]


@pytest.mark.parametrize("padded", [False, True])
def test_outputs_of_every_layer(pair, padded):
    ours, theirs = pair
    pixels, mask = batch()
    if not padded:
        mask = torch.ones_like(mask)
    _, logits, boxes = peers_detr.run(theirs, pixels, mask.long())
    outputs = ours(pixels, mask if padded else None)
    layers = [*outputs["aux"], outputs]
    assert len(layers) == 3
    for i, layer in enumerate(layers):
        peers.assert_close(layer["logits"], logits[i], TOLERANCE)
        peers.assert_close(layer["boxes"], boxes[i], TOLERANCE)
    ours.eval()
    alone = ours(pixels, mask)
    ours.train()
    assert alone.keys() == {"logits", "boxes"}
    peers.assert_close(alone["boxes"], boxes[-1], TOLERANCE)


def test_matching(pair):
    ours, theirs = pair
    pixels, mask = batch()
    targets, their_targets = objects()
    outputs, expected = ours(pixels, mask), theirs(pixels, mask.long())
    matched = SetLoss().match(outputs, targets)
    matcher = peers_detr.matcher(class_cost=1, bbox_cost=5, giou_cost=2)
    wanted = matcher({"logits": expected.logits, "pred_boxes": expected.pred_boxes}, their_targets)
    for (query, target), (their_query, their_target) in zip(matched, wanted, strict=True):
        assert torch.equal(query, their_query)
        assert torch.equal(target, their_target)


def test_loss_and_gradients(pair, monkeypatch):
    ours, theirs = pair
    pixels, mask = batch()
    targets, their_targets = objects()
    ours.zero_grad()
    theirs.zero_grad()
    loss = SetLoss()
    terms = loss(ours(pixels, mask), targets)
    output, logits, boxes = peers_detr.run(theirs, pixels, mask.long())
    monkeypatch.setattr(theirs.config, "auxiliary_loss", True)
    torch.set_default_dtype(torch.float64)  # their class weights are made in the default dtype
    expected, their_terms, _ = theirs.loss_function(
        output.logits, their_targets, "cpu", output.pred_boxes, theirs.config, logits, boxes
    )
    torch.set_default_dtype(torch.float32)
    names = {"loss_ce": "class", "loss_bbox": "boxes", "loss_giou": "giou"}
    compared = set()
    for their_name, value in their_terms.items():
        for start, our_start in names.items():
            if their_name.startswith(start):  # the cardinality error is no loss
                name = their_name.replace(start, our_start)
                peers.assert_close(terms[name], value, TOLERANCE)
                compared.add(name)
    assert compared == set(terms)
    assert len(compared) == 9
    total = loss.total(terms)
    peers.assert_close(total, expected, TOLERANCE)
    total.backward()
    expected.backward()
    gradients = peers.gradients(theirs)
    compared = set()
    for name, parameter in ours.named_parameters():
        if name == "decoder.blocks.0.self_attention.sublayer.qkv.weight":
            # All values are equal where queries begin as zeros: only rounding is left.
            assert max(parameter.grad.abs().max(), gradients[name].abs().max()) < 1e-12
        elif parameter.requires_grad:
            peers.assert_close(parameter.grad, gradients[name], TOLERANCE)
            compared.add(name)
    trained = {name.split(".")[2] for name in compared if name.startswith("backbone.")}
    assert trained == {"layer2", "layer3", "layer4"}


@pytest.mark.slow
def test_published_size():
    """Every weight of facebook/detr-resnet-50 has its place, with its shape."""
    theirs = transformers.DetrForObjectDetection(transformers.DetrConfig(num_labels=91))
    ours = family.from_pretrained(theirs)
    with torch.device("meta"):
        built = family.detr_resnet50().state_dict()
    state = ours.state_dict()
    assert state.keys() == built.keys()
    assert all(state[name].shape == value.shape for name, value in built.items())
    trained = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    fixed = (theirs.model.backbone.model.conv1, theirs.model.backbone.model.layer1)
    fixed_count = sum(p.numel() for module in fixed for p in module.parameters())
    assert trained == sum(p.numel() for p in theirs.parameters()) - fixed_count
