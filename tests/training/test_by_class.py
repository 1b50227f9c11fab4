"""What a test leaves in the run's folder: confusion, classes, the worst errors; and predictions by name."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

import tasks
from tasks.data.image_classification import ImageClassificationData
from tasks.data.segmentation import SegmentationData
from tasks.runs.folder import RunRecord
from tasks.runs.tables import flat, write_table
from tasks.training.by_class import class_table, confusion_table, counted, unlike
from tasks.training.coco_metrics import coco_classes

COLOURS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}


class Channels(nn.Module):
    """The class of a picture, or of its pixels, is its strongest channel of blue, green, red."""

    def __init__(self, dense=False):
        super().__init__()
        self.factor, self.dense = nn.Parameter(torch.ones(())), dense

    def forward(self, pixel_values):
        scores = pixel_values.flip(1) * self.factor
        return scores if self.dense else scores.mean((2, 3))


def run(folder, how, task, data):
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=[RunRecord(folder / "run")],
    )  # fmt: skip
    getattr(trainer, how)(task, datamodule=data)


def table(file):
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of each class; one of the red is green."""
    for split in ("train", "val", "test"):
        for name, colour in COLOURS.items():
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(2):
                seen = COLOURS["green"] if (name, i) == ("red", 1) else colour
                Image.new("RGB", (8, 8), seen).save(tmp_path / f"data/{split}/{name}/{i}.png")
    return ImageClassificationData(str(tmp_path / "data"), image_size=8, batch_size=4)


def test_classes(tmp_path, pictures):
    run(tmp_path, "test", tasks.ImageClassification(Channels()), pictures)
    confusion = table(tmp_path / "run/test-confusion.csv")
    counts = [[int(row[name]) for name in COLOURS] for row in confusion]
    assert counts == [[2, 0, 0], [0, 2, 0], [0, 1, 1]]
    rows = {row["class"]: row for row in table(tmp_path / "run/test-classes.csv")}
    assert float(rows["green"]["precision"]) == pytest.approx(2 / 3, abs=1e-5)
    assert float(rows["red"]["recall"]) == 0.5 and rows["red"]["true"] == "2"
    (worst,) = table(tmp_path / "run/test-worst.csv")
    assert (worst["file"], worst["true"], worst["made"]) == ("red/1.png", "red", "green")
    assert float(worst["true_probability"]) < float(worst["score"])


def test_predictions_have_names_and_all_probabilities(tmp_path, pictures):
    run(tmp_path, "predict", tasks.ImageClassification(Channels()), pictures)
    rows = [json.loads(row) for row in (tmp_path / "run/predictions.jsonl").open()]
    assert [row["file"] for row in rows] == [f"{name}/{i}.png" for name in COLOURS for i in (0, 1)]
    for row in rows:
        assert list(row["probabilities"]) == list(COLOURS)
        assert row["score"] == pytest.approx(max(row["probabilities"].values()))
    flatly = table(tmp_path / "run/predictions.csv")
    assert float(flatly[0]["probabilities.red"]) == rows[0]["probabilities"]["red"]


def test_masks(tmp_path):
    """Each as large as its picture, with the ids of the data, by the picture's name."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for kind in ("images", "masks"):
            (tmp_path / "data" / split / kind / "deep").mkdir(parents=True)
        for name in ("a", "deep/b"):
            ids = rng.integers(1, 4, (8, 8)).astype(np.uint8)
            colours = np.array([(0, 0, 0), *COLOURS.values()], np.uint8)[ids]
            large = Image.fromarray(colours).resize((16, 16), 0)
            large.save(tmp_path / f"data/{split}/images/{name}.png")
            Image.fromarray(ids).resize((16, 16), 0).save(
                tmp_path / f"data/{split}/masks/{name}.png"
            )
    data = SegmentationData(str(tmp_path / "data"), 16, 2, ignore=0)
    run(tmp_path, "predict", tasks.Segmentation(Channels(dense=True)), data)
    rows = [json.loads(row) for row in (tmp_path / "run/predictions.jsonl").open()]
    assert [(row["file"], row["mask"]) for row in rows] == [
        ("a.png", "masks/a.png"),
        ("deep/b.png", "masks/deep/b.png"),
    ]
    for row in rows:
        made = np.asarray(Image.open(tmp_path / "run" / row["mask"]))
        assert (made == np.asarray(Image.open(tmp_path / "data/test/masks" / row["file"]))).all()
    run(tmp_path, "test", tasks.Segmentation(Channels(dense=True)), data)
    assert [float(row["iou"]) for row in table(tmp_path / "run/test-classes.csv")] == [1, 1, 1]
    assert len(table(tmp_path / "run/test-worst.csv")) == 2


def test_average_precision_by_class():
    box = {"bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0, "image_id": 7}
    truth = {
        "images": [{"id": 7, "height": 100, "width": 100}],
        "categories": [{"id": 3, "name": "cell"}, {"id": 9, "name": "plate"}, {"id": 11, "name": "x"}],
        "annotations": [{**box, "id": 1, "category_id": 3}, {**box, "id": 2, "category_id": 9}],
    }  # fmt: skip
    found = [{"image_id": 7, "category_id": 3, "bbox": box["bbox"], "score": 0.5}]
    rows = coco_classes(truth, found)
    assert [(row["class"], row["ap"], row["objects"]) for row in rows] == [
        ("cell", 1, 1),
        ("plate", 0, 1),
        ("x", "", 0),
    ]


def test_tables(tmp_path):
    counts = counted([0, 1, 1], [0, 0, 1], 3)
    assert counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert class_table(counts, "abc")[2]["recall"] == ""  # never there
    assert list(confusion_table(counts, ["crane", "owl", "crane"])[0])[1:] == [
        "crane (0)",
        "owl",
        "crane (2)",
    ]
    assert flat({"a": {"b": [1, {"c": 2}]}, "d": 3}) == {"a.b.0": 1, "a.b.1.c": 2, "d": 3}
    write_table(tmp_path / "a.csv", [{"a": 1}, {"b": "x,y"}])
    assert (tmp_path / "a.csv").read_text() == 'a,b\n1,\n,"x,y"\n'


def test_names_that_are_shared_get_their_numbers_however_many_there_are():
    assert unlike(["crane", "dog", "crane"]) == ["crane (0)", "dog", "crane (2)"]
    many = [str(i) for i in range(100_000)]
    assert unlike(many) == many  # by counting once, not once for each
