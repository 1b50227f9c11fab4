"""The figures that are reported: mAP, IoU, recall, and the pictures that show them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.detection import coco_results
from tasks.image_text import ranks
from tasks.segmentation import scores
from tasks.training.coco_metrics import coco_table
from tasks.training.pictures import draw_boxes, overlay, palette, sheet, wrap

TRUTH = {
    "images": [{"id": 7, "height": 100, "width": 100}],
    "categories": [{"id": 3, "name": "cell"}, {"id": 9, "name": "plate"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 9, "bbox": [60, 60, 20, 20], "area": 400, "iscrowd": 0},
    ],
}  # fmt: skip


def test_map_of_the_truth_is_one_and_of_half_of_it_half():
    boxes = {
        "boxes": torch.tensor([[10.0, 10, 50, 50], [60, 60, 80, 80]]),
        "labels": torch.tensor([0, 1]),
        "scores": torch.tensor([0.9, 0.8]),
    }
    found = coco_results(boxes, 7, [3, 9])
    assert found[1] == {
        "image_id": 7,
        "category_id": 9,
        "bbox": [60.0, 60.0, 20.0, 20.0],
        "score": pytest.approx(0.8),
    }
    whole = coco_table(TRUTH, found)
    assert whole["map"] == whole["map_50"] == whole["mar_100"] == pytest.approx(1)
    assert "map_large" not in whole  # there is no such object
    assert coco_table(TRUTH, found[:1])["map"] == pytest.approx(0.5)
    assert coco_table(TRUTH, [])["map"] == 0


def test_iou_counts_both_kinds_of_mistakes_and_leaves_absent_classes_out():
    confusion = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    iou, accuracy = scores(confusion)
    assert iou[:2].tolist() == pytest.approx([6 / 9, 3 / 6])
    assert iou[2].isnan()
    assert float(accuracy) == pytest.approx(9 / 12)


def test_rank_is_that_of_the_best_right_column():
    similarity = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]])
    same = torch.tensor([[True, False, True], [False, False, True]])
    assert ranks(similarity, same).tolist() == [1, 2]


def test_pictures():
    picture = Image.new("RGB", (40, 30))
    boxes = draw_boxes(picture, torch.tensor([[5.0, 12, 30, 28]]), [1], ["a", "b"], [0.5])
    assert boxes.getpixel((5, 20)) == palette(2)[1]
    assert picture.getpixel((5, 20)) == (0, 0, 0)  # a copy
    tinted = np.asarray(overlay(picture, torch.tensor([[0, 255], [1, 1]]), 2))
    assert tinted[0, 1].tolist() == [0, 0, 0]  # an ignored pixel stays
    assert (tinted[0, 0] > 0).any()
    page = sheet([picture] * 5, ["one\ntwo"] * 5, columns=2)
    assert page.width < page.height
    assert wrap("a few words that do not fit", 60, 11).count("\n") >= 1


def test_a_collapsed_model_finds_nothing():
    same = torch.eye(20, dtype=torch.bool)
    for value in (1.0, float("nan")):
        assert (ranks(torch.full((20, 20), value), same) == 19).all()
