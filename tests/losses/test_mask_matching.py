"""Masks against segments: costs and losses by their formulas, the best assignment, and what is refused."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from family.losses.mask_matching import MaskLoss, class_segments, overlap


def example(queries=4, size=6):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, queries, 4, generator=generator)
    masks = torch.randn(2, queries, size, size, generator=generator) * 3
    targets = [
        {"labels": torch.tensor(labels), "masks": torch.rand(len(labels), size, size) > 0.5}
        for labels in ([2, 0, 2], [1])
    ]
    return logits, masks, targets


def by_hand(logits, made, true, label):
    """Class, mask and dice of a query and a segment, pixel by pixel."""
    chance = made.sigmoid()
    each = -torch.where(true, chance.log(), (1 - chance).log())
    dice = (2 * chance[true].sum() + 1) / (chance.sum() + true.sum() + 1)
    return logits.softmax(-1)[label], each.mean(), dice


def test_the_cheapest_assignment_of_all():
    logits, masks, targets = example()
    pairs = MaskLoss().match(logits, masks, targets)
    for i, (picture, query, number) in enumerate(pairs):
        assert set(picture.tolist()) == {i}

        def cost(q, n, i=i):
            true, label = targets[i]["masks"][n], targets[i]["labels"][n]
            chance, mask, dice = by_hand(logits[i, q], masks[i, q], true, label)
            return float(-2 * chance + 5 * mask - 5 * dice)

        count = len(targets[i]["labels"])
        best = min(
            permutations(range(4), count),
            key=lambda order: sum(cost(q, n) for n, q in enumerate(order)),
        )
        found = sorted(zip(number.tolist(), query.tolist(), strict=True))
        assert found == list(enumerate(best))


def test_terms_are_the_formulas():
    logits, masks, targets = example()
    terms = MaskLoss()(logits, masks, targets)
    wanted = torch.full((2, 4), 3)
    mask = dice = 0.0
    for pairs in MaskLoss().match(logits, masks, targets):
        for i, q, n in zip(*pairs, strict=True):
            label, true = targets[i]["labels"][n], targets[i]["masks"][n]
            wanted[i, q] = label
            _, each, share = by_hand(logits[i, q], masks[i, q], true, label)
            mask, dice = mask + each, dice + 1 - share
    weight = torch.tensor([1, 1, 1, 0.1])[wanted]
    each = -logits.log_softmax(-1).gather(-1, wanted[..., None])[..., 0]
    torch.testing.assert_close(terms["class"], 2 * (weight * each).sum() / weight.sum())
    torch.testing.assert_close(terms["mask"], 5 * mask / 4)
    torch.testing.assert_close(terms["dice"], 5 * dice / 4)


def test_the_classes_of_pixels_as_segments():
    labels = torch.tensor([[[0, 0, 2], [255, 2, 2]], [[255] * 3] * 2])
    first, void = class_segments(labels)
    assert first["labels"].tolist() == [0, 2]
    assert first["masks"].sum((1, 2)).tolist() == [2, 3]
    assert first["counted"].sum() == 5 and void["masks"].shape == (0, 2, 3)


def test_pixels_that_do_not_count():
    logits, masks, _ = example()
    labels = torch.randint(3, (2, 6, 6))
    labels[:, 2:4] = 255
    other = masks.clone()
    other[:, :, 2:4] += 5
    one, two = (MaskLoss()(logits, m, class_segments(labels)) for m in (masks, other))
    for name, term in one.items():
        torch.testing.assert_close(term, two[name])
    terms = MaskLoss()(logits, masks, class_segments(torch.full((2, 6, 6), 255)))
    assert terms["mask"] == terms["dice"] == 0 and terms["class"].isfinite()


def test_a_perfect_set_costs_little():
    labels = torch.tensor([[[0, 0, 1], [2, 2, 1]]])
    masks = torch.full((1, 3, 2, 3), -20.0)
    for query, label in enumerate((2, 0, 1)):
        masks[0, query][labels[0] == label] = 20
    logits = 20 * torch.eye(4)[None, [2, 0, 1]]
    terms = MaskLoss()(logits, masks, class_segments(labels))
    assert all(value < 1e-3 for value in terms.values())
    none = torch.zeros(3)
    assert overlap(none, none, none.sum()) == 1


def test_one_sentence_for_targets_that_do_not_fit():
    logits, masks, targets = example()
    first = targets[0]
    cases = [
        (targets[:1], "1 targets were given for 2 pictures"),
        ([{**first, "labels": first["labels"] + 1}, targets[1]], "label 3 is outside 0..2"),
        ([{**first, "masks": first["masks"][0]}, targets[1]], r"targets\[0\]: labels \(n\)"),
        ([first, {**targets[1], "masks": torch.ones(1, 3, 6) > 0}], r"\(3, 6\) pixels beside ones"),
        (class_segments(torch.arange(36).view(1, 6, 6).repeat(2, 1, 1)), "has 36 segments, but"),
    ]
    for wrong, said in cases:
        with pytest.raises(ValueError, match=said):
            MaskLoss()(logits, masks, wrong)
    with pytest.raises(ValueError, match="is not finite"):
        MaskLoss()(logits * float("nan"), masks, targets)
