"""Average precision over masks, where the answer is known."""

from __future__ import annotations

import pytest
import torch

from tasks.training.coco_masks import judge, mask_table, run_lengths

NAMES = ["background", "circle", "square"]


def scene():
    """The background, two circles and a square, a quarter of the picture each."""
    masks = torch.zeros(4, 16, 16, dtype=torch.bool)
    masks[0, :8, :8] = masks[1, :8, 8:] = masks[2, 8:, :8] = masks[3, 8:, 8:] = True
    return {"labels": torch.tensor([0, 1, 1, 2]), "masks": masks}


def found(labels, masks):
    scores = torch.linspace(0.9, 0.5, len(labels))
    return {"labels": torch.tensor(labels), "scores": scores, "masks": masks}


def test_what_is_right_scores_one_and_each_picture_counts_once():
    true = scene()
    right = judge("a", found([0, 1, 1, 2], true["masks"]), true, [1, 2])
    assert [row["category_id"] for row in right.found] == [1, 1, 2]
    none = judge("b", found([], true["masks"][:0]), true, [1, 2])
    table, classes = mask_table([right], NAMES)
    assert table == {"map": 1, "map_50": 1, "map_75": 1}
    assert [(row["class"], row["objects"]) for row in classes] == [("circle", 2), ("square", 1)]
    assert mask_table([right, none, none], NAMES)[0]["map"] == pytest.approx(0.5, abs=0.01)
    assert mask_table([none], NAMES)[0]["map"] == 0


def test_objects_that_are_not_told_apart_are_missed():
    """All circles in one mask, as classes of pixels have them."""
    true = scene()
    masks = torch.stack([true["masks"][1] | true["masks"][2], true["masks"][3]])
    table, classes = mask_table([judge("a", found([1, 2], masks), true, [1, 2])], NAMES)
    assert table["map_75"] == 0.5  # the square
    # One of two at IoU 0.5, none above: 51 of the 101 recalls, one of the ten IoUs.
    assert classes[0]["ap"] == pytest.approx(51 / 1010, abs=1e-6)
    everything = judge("a", found([0, 1, 1, 2], true["masks"]), true, None)
    assert len(everything.true) == len(everything.found) == 4


def test_no_instance_is_no_number():
    true = {"labels": torch.tensor([0]), "masks": torch.ones(1, 4, 4, dtype=torch.bool)}
    assert mask_table([judge("a", found([0], true["masks"]), true, [1])], NAMES) == ({}, [])
    assert run_lengths(true["masks"]) == [{"size": [4, 4], "counts": "0`0"}]
