"""Detection is judged over the pictures that were seen, and over each of them once."""

from __future__ import annotations

import math

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

import tasks
from family.inference.loaded import Loaded
from tasks.data.detection import DetectionData
from tasks.errors import UserError
from tasks.training.coco_metrics import Judged, best_threshold, once


class Oracle(nn.Module):
    """A detector that answers what it was told, picture after picture."""

    classification = "focal"

    def __init__(self, targets, score=4.0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.targets, self.at, self.score = targets, 0, score

    def forward(self, pixel_values, pixel_mask=None):
        count = len(pixel_values)
        now, self.at = self.targets[self.at : self.at + count], self.at + count
        logits = torch.full((count, 8, 8), -9.0) + self.weight
        boxes = torch.full((count, 8, 4), 0.01)
        for i, target in enumerate(now):
            for j, (label, box) in enumerate(zip(target["labels"], target["boxes"], strict=True)):
                logits[i, j, label], boxes[i, j] = self.score, box
        return {"logits": logits, "boxes": boxes}


def trainer(folder, **options):
    return pl.Trainer(
        accelerator="cpu", logger=False, default_root_dir=folder, enable_progress_bar=False,
        enable_model_summary=False, **options,
    )  # fmt: skip


def shapes():
    data = DetectionData(image_size=(32, 32), examples=40, batch_size=4)
    data.setup("validate")
    return data, [target for batch in data.loader("val") for target in batch["targets"]]


@pytest.mark.parametrize("split", ["validate", "test"])
def test_of_a_part_of_a_split_that_part_is_the_truth(tmp_path, split):
    data, _ = shapes()
    name = {"validate": "val", "test": "test"}[split]
    targets = [target for batch in data.loader(name) for target in batch["targets"]]
    task = tasks.Detection(Oracle(targets))
    run = trainer(tmp_path, **{f"limit_{name}_batches": 2})
    found = getattr(run, split)(task, datamodule=data, verbose=False)[0]
    assert found[f"{name}/map"] == pytest.approx(1)
    assert found[f"{name}/mar_100"] == pytest.approx(1)
    # What another evaluation left behind does not count in this one.
    task.model.at = 0
    task.judged.append(Judged(targets[0], []))
    assert getattr(run, split)(task, datamodule=data, verbose=False)[0][f"{name}/map"] == 1


def test_a_picture_that_comes_twice_counts_once():
    target = {"image_id": 3, "labels": torch.tensor([1]), "boxes": torch.ones(1, 4)}
    other = {**target, "boxes": torch.zeros(1, 4)}
    assert len(once([Judged(target, [{}]), Judged(dict(target), [{}])])) == 1
    with pytest.raises(UserError, match="two pictures have image_id=3"):
        once([Judged(target, []), Judged(other, [])])


def test_without_an_object_there_is_no_score(tmp_path, caplog):
    empty = {"labels": torch.empty(0, dtype=torch.long), "boxes": torch.empty(0, 4)}
    targets = [{**empty, "image_id": i, "size": (32, 32)} for i in range(2)]
    batch = {"pixel_values": torch.zeros(2, 3, 32, 32), "targets": targets}
    loader = torch.utils.data.DataLoader([batch], batch_size=None)
    task = tasks.Detection(Oracle(targets))
    found = trainer(tmp_path).validate(task, loader, verbose=False)[0]
    assert "none of 2 pictures has an object" in caplog.text
    assert math.isnan(found["val/map"])


def test_the_threshold_is_that_of_the_greatest_f1():
    rows = [[1, 0.25, 1, 0], [1, 0.2, 1023, 0], [1, 0.2, 0, 0], [1, 0.1, 0, 0], [1, 0.05, 1, 0]]
    assert best_threshold(rows, objects=3) == 0.05  # 6 / 8; 2 / 4, 4 / 6 and 4 / 7 before it
    assert best_threshold(rows[:2] + rows[3:4], objects=3) == 0.2  # 4 / 5
    assert best_threshold(rows[:4], objects=3) == 0.2  # the one that is wrong is shown as well
    assert best_threshold([*rows[:1], [1, 0.9, 0, 1]], objects=1) == 0.25  # excused is no mistake
    assert best_threshold([[1, 0.9, 0, 0]], objects=1) is None


def test_boxes_are_shown_at_the_threshold_that_validation_found_best(tmp_path):
    data, targets = shapes()
    task = tasks.Detection(Oracle(targets, score=-2.0))  # all scores are 0.12
    trainer(tmp_path).validate(task, datamodule=data, verbose=False)
    assert task.threshold == pytest.approx(0.1192, abs=1e-4)
    assert task.assets()["threshold"] == task.threshold
    kept = {"family": {"assets": task.assets()}}
    again = tasks.Detection(Oracle(targets))
    again.on_load_checkpoint(kept)
    assert again.threshold == task.threshold
    model = task.model
    model.at, model.preprocess, model.labels = 0, data.preprocess, data.assets()["labels"]
    picture = data.annotations("val").image(0)
    loaded = Loaded(model, "Detection", task.assets(), "a detector")
    assert len(loaded.predict([picture])[0]) == len(targets[0]["labels"])
    model.at = 0
    assert loaded.predict([picture], threshold=0.3) == [[]]


def test_a_test_leaves_classes_and_the_worst_pictures(tmp_path):
    data, _ = shapes()
    targets = [target for batch in data.loader("test") for target in batch["targets"]]
    blind = [{**targets[0], "labels": targets[0]["labels"][:0], "boxes": targets[0]["boxes"][:0]}]
    task = tasks.Detection(Oracle(blind + targets[1:]))
    trainer(tmp_path, limit_test_batches=2).test(task, datamodule=data, verbose=False)
    worst = task.tables["worst"][0]
    assert worst["file"] == targets[0]["file"] and worst["missed"] == len(targets[0]["labels"])
    assert worst["wrong"] == worst["right"] == 0
    assert sum(row["missed"] + row["wrong"] for row in task.tables["worst"]) == worst["missed"]
    seen = sum(len(target["labels"]) for target in targets[:8])
    assert sum(row["objects"] for row in task.tables["classes"]) == seen
