"""Boxes, matching and the loss of a set, without any model."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import generalized_box_iou

from family.losses.boxes import generalized_iou, to_centres, to_corners
from family.losses.set_matching import NEGATIVE, PADDING, SetLoss

CLASSES = 5


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def some_boxes(*shape):
    return torch.cat([torch.rand(*shape, 2), torch.rand(*shape, 2) * 0.4 + 0.05], dim=-1)


def predictions(classification="softmax", batch=3, queries=6):
    classes = CLASSES + (classification == "softmax")
    logits = torch.randn(batch, queries, classes, requires_grad=True)
    return {"logits": logits, "boxes": some_boxes(batch, queries).requires_grad_()}


def objects(*counts):
    return [{"labels": torch.randint(0, CLASSES, (n,)), "boxes": some_boxes(n)} for n in counts]


def test_corners_and_centres():
    corners = to_corners(torch.tensor([0.5, 0.4, 0.2, 0.6]))
    torch.testing.assert_close(corners, torch.tensor([0.4, 0.1, 0.6, 0.7]))
    boxes = some_boxes(7)
    torch.testing.assert_close(to_centres(to_corners(boxes)), boxes)


def test_generalized_iou():
    ours, theirs = to_corners(some_boxes(6)), to_corners(some_boxes(4))
    expected = generalized_box_iou(ours, theirs)
    torch.testing.assert_close(generalized_iou(ours[:, None], theirs), expected)
    torch.testing.assert_close(generalized_iou(ours[:4], theirs), expected[:4].diagonal())


def test_degenerate_boxes_stay_finite():
    odd = [[0.3, 0.3, 0, 0], [0.3, 0.3, 0.2, 0], [0.3, 0.3, -0.1, 0.2], [0.3, 0.3, 1e-22, 1e-22]]
    boxes = torch.tensor(odd, requires_grad=True)
    corners = to_corners(boxes)
    values = generalized_iou(corners[:, None], corners)
    values.sum().backward()
    assert values.isfinite().all()
    assert boxes.grad.isfinite().all()


@pytest.mark.parametrize("classification", ["softmax", "focal"])
def test_match_is_the_cheapest_of_all(classification):
    loss = SetLoss(classification)
    outputs, targets = predictions(classification), objects(3, 0, 2)
    for picture, (query, target) in enumerate(loss.match(outputs, targets)):
        logits, boxes = (outputs[name][picture].detach() for name in ("logits", "boxes"))
        labels, wanted = targets[picture]["labels"], targets[picture]["boxes"]
        if classification == "softmax":
            classes = -logits.softmax(-1)
        else:
            p = logits.sigmoid()
            classes = -0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log()
        cost = (1 if classification == "softmax" else 2) * classes[:, labels]
        cost = cost + 5 * (boxes[:, None] - wanted).abs().sum(-1)
        cost = cost - 2 * generalized_box_iou(to_corners(boxes), to_corners(wanted))
        n = len(labels)
        every = itertools.permutations(range(6), n)
        best = min(float(cost[list(choice), range(n)].sum()) for choice in every)
        assert sorted(target.tolist()) == list(range(n))
        assert float(cost[query, target].sum()) == pytest.approx(best, rel=1e-5)


def test_more_objects_than_queries():
    ((query, target),) = SetLoss().match(predictions(batch=1, queries=2), objects(5))
    assert sorted(query.tolist()) == [0, 1]
    assert len(set(target.tolist())) == 2


@pytest.mark.parametrize("classification", ["softmax", "focal"])
def test_layers_at_once_equal_each_alone(classification):
    loss = SetLoss(classification)
    last, first = predictions(classification), predictions(classification)
    proposals = predictions(classification, queries=4)
    targets = objects(3, 0, 2)
    terms = loss({**last, "aux": [first], "proposals": proposals}, targets)
    for suffix, layer in (("", last), ("_0", first), ("_proposals", proposals)):
        for kind, value in loss(layer, targets).items():
            torch.testing.assert_close(terms[kind + suffix], value)
    assert len(terms) == 9
    weights = {"class": 1 if classification == "softmax" else 2, "boxes": 5, "giou": 2}
    total = sum(weights[name.split("_")[0]] * term.item() for name, term in terms.items())
    assert loss.total(terms).item() == pytest.approx(total, rel=1e-5)


def test_terms_of_focal_written_out():
    loss = SetLoss("focal")
    outputs, targets = predictions("focal"), objects(3, 0, 2)
    terms = loss(outputs, targets)
    wanted, distance, giou = torch.zeros(3, 6, CLASSES), 0.0, 0.0
    for picture, (query, target) in enumerate(loss.match(outputs, targets)):
        wanted[picture, query, targets[picture]["labels"][target]] = 1
        ours, theirs = outputs["boxes"][picture][query], targets[picture]["boxes"][target]
        distance += (ours - theirs).abs().sum()
        giou += (1 - generalized_box_iou(to_corners(ours), to_corners(theirs)).diagonal()).sum()
    p = outputs["logits"].sigmoid()
    hit, miss = -0.25 * (1 - p) ** 2 * p.log(), -0.75 * p**2 * (1 - p).log()
    torch.testing.assert_close(terms["class"], (wanted * hit + (1 - wanted) * miss).sum() / 5)
    torch.testing.assert_close(terms["boxes"], distance / 5)
    torch.testing.assert_close(terms["giou"], giou / 5)


@pytest.mark.parametrize("classification", ["softmax", "focal"])
def test_no_object_at_all(classification):
    loss, outputs = SetLoss(classification), predictions(classification)
    terms = loss(outputs, objects(0, 0, 0))
    assert float(terms["boxes"]) == float(terms["giou"]) == 0
    if classification == "softmax":
        nothing = torch.full((18,), CLASSES)
        expected = F.cross_entropy(outputs["logits"].flatten(0, 1), nothing)
        torch.testing.assert_close(terms["class"], expected)
    loss.total(terms).backward()
    assert outputs["logits"].grad.abs().sum() > 0
    assert outputs["boxes"].grad.isfinite().all()


def test_half_precision_is_compared_in_float32():
    outputs = {name: value.bfloat16() for name, value in predictions().items()}
    assert {term.dtype for term in SetLoss()(outputs, objects(3, 0, 2)).values()} == {torch.float32}


def test_number_of_objects_is_that_of_all_processes(monkeypatch):
    """Two processes, 5 objects here and 3 there: sums are divided by the mean, 4."""
    outputs, targets = predictions(), objects(3, 0, 2)
    alone = SetLoss()(outputs, targets)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(3))
    terms = SetLoss()(outputs, targets)
    torch.testing.assert_close(terms["boxes"] * 4, alone["boxes"] * 5)
    torch.testing.assert_close(terms["giou"] * 4, alone["giou"] * 5)


@pytest.mark.parametrize("classification", ["softmax", "focal"])
def test_denoising_knows_its_pairs(classification):
    loss, targets = SetLoss(classification), objects(2, 1)
    ids = torch.tensor(
        [[0, 1, NEGATIVE, NEGATIVE] * 2, [0, PADDING, NEGATIVE, PADDING] * 2], dtype=torch.int64
    )
    exact = torch.stack([t["boxes"][[0, -1, 0, -1] * 2] for t in targets])
    outputs = predictions(classification, batch=2)
    noised = predictions(classification, batch=2, queries=8)["logits"].detach()

    def terms(logits, boxes):
        layer = {"logits": logits, "boxes": boxes}
        denoising = {**layer, "aux": [layer], "target_ids": ids, "groups": 2}
        return loss({**outputs, "denoising": denoising}, targets)

    found = terms(noised, exact)
    assert float(found["boxes_denoising"]) == float(found["boxes_denoising_0"]) == 0
    assert len(found) == 9
    moved = terms(noised, exact + torch.tensor([0.01, 0, 0, 0]))
    # 3 objects in 2 groups: the mean over all pairs.
    assert float(moved["boxes_denoising"]) == pytest.approx(0.01, rel=1e-3)
    padding, negative = noised.clone(), noised.clone()
    padding[1, [1, 3, 5, 7]] += torch.randn(classes := noised.shape[-1])
    negative[0, 2] += torch.randn(classes)
    torch.testing.assert_close(terms(padding, exact), found)
    assert float(terms(negative, exact)["class_denoising"]) != float(found["class_denoising"])
    # A query is compared with its own target's class.
    right = noised.clone()
    right[0, 1, targets[0]["labels"][1]] += 20
    assert float(terms(right, exact)["class_denoising_0"]) < float(found["class_denoising_0"])


def test_bad_input_is_named():
    loss, outputs = SetLoss(), predictions()
    with pytest.raises(ValueError, match="2 targets were given for 3 pictures"):
        loss(outputs, objects(1, 1))
    targets = objects(1, 2, 0)
    targets[1]["labels"][0] = CLASSES
    with pytest.raises(ValueError, match="label 5 is outside 0..4, the model's 5 classes"):
        loss(outputs, targets)
    targets = objects(1, 2, 0)
    targets[1]["boxes"] = targets[1]["boxes"][:1]
    with pytest.raises(ValueError, match=r"targets\[1\]: labels \(n\) and boxes \(n, 4\)"):
        loss(outputs, targets)
    broken = {**outputs, "boxes": outputs["boxes"].detach().clone()}
    broken["boxes"][1, 2, 3] = torch.nan
    with pytest.raises(ValueError, match="picture 1 of the batch is not finite"):
        loss(broken, objects(1, 2, 0))
