"""``family check``: every data module can be looked at, and each fault that is planted is found."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from test_preparation import SMALL, made

import tasks
from tasks.cli import main
from tasks.commands import check
from tasks.compare import trial
from tasks.data.base import FamilyData
from tasks.data.stored import Stored, look

STACK = {"dim": 16, "depth": 1, "heads": 2, "ffn_dim": 32, "position": "learned"}
QUIET = {"accelerator": "cpu", "max_steps": 100}
SHAPES = ["circle", "square"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "SAME", 12)
    return tmp_path


def looked(data) -> dict:
    report = {"splits": {}, "classes": {}, "notes": [], "mend": []}
    check.look_at(data, report)
    return report


# --- All data modules ---


@pytest.mark.parametrize("name", SMALL)
def test_every_data_module_can_be_looked_at(name, monkeypatch):
    monkeypatch.setattr("tasks.data.language_modeling.LINE", 4)  # its texts are short here
    chars = "vocab_size" in SMALL[name] and name != "VisionChatData"  # it says rare numbers
    more = {"tokenizer": "char"} if chars else {}
    data = made(name, text="train: a red circle beside " + "the blue square " * 4 + "\n", **more)
    if isinstance(data, tasks.VisionChatData):
        data.prepares()
    assert type(data).stored is not FamilyData.stored
    report = looked(data)
    assert report["splits"].keys() >= {"train", "val"}
    for found in report["splits"].values():
        assert found["examples"] >= found["looked_at"] > 0
        if found["tokens"]:
            assert 0 < found["tokens"]["min"] <= found["tokens"]["max"]
    if hasattr(data, "class_counts"):
        assert [*report["classes"].values()] == data.class_counts()
    json.dumps(report)


def test_a_sample_is_said_and_spread_evenly():
    seen = []
    stored = Stored(100, lambda i: seen.append(i) or str(i))
    found = look(stored, 5)
    assert (found.examples, found.sampled) == (100, 5) and seen == [0, 24, 49, 74, 99]


# --- Planted faults ---


def texts(folder, train, val=None):
    for split, rows in (("train", train), ("val", val or train[:0] or DEV), ("test", DEV)):
        lines = "".join(f"{text}\t{label}\n" for text, label in rows)
        (folder / f"{split}.tsv").write_text("text\tlabel\n" + lines)


DEV = [(f"a {SHAPES[i % 2]} that is held out {i}", SHAPES[i % 2]) for i in range(20)]
TRAIN = [(f"a {SHAPES[i % 2]} of training {i}", SHAPES[i % 2]) for i in range(60)]


def of_texts(folder, **options):
    options = {"tokenizer": "char", "batch_size": 8, **options}
    return tasks.TextClassificationData(str(folder), **options)


def test_good_texts_are_to_be_left_as_they_are(folder):
    texts(folder, TRAIN)
    report = looked(of_texts(folder))
    assert report["mend"] == [] and report["classes"] == {"circle": 30, "square": 30}


def test_texts_that_are_in_train_too(folder):
    texts(folder, TRAIN, TRAIN[:5] + DEV[:15])
    (said,) = looked(of_texts(folder))["mend"]
    assert said.startswith("5 of 20 examples of val that were looked at are in train too")


def test_pictures_that_are_in_train_too(folder):
    for split, first in (("train", 0), ("val", 3), ("test", 100)):
        for name in SHAPES:
            (folder / split / name).mkdir(parents=True)
            for i in range(4):
                value = first + i + 50 * (name == "square")
                place = folder / split / name / f"{split}{i}.png"
                Image.new("RGB", (8, 8), (value, 9, 9)).save(place)
    (said,) = looked(tasks.ImageClassificationData(str(folder), image_size=8))["mend"]
    assert said.startswith("2 of 8 examples of val")


def test_labels_that_contradict_each_other(folder):
    shuffled = [(text, SHAPES[i // 20 % 2]) for i, (text, _) in enumerate(TRAIN[:20] * 3)]
    texts(folder, shuffled)
    assert any("with another label: labels may be shuffled" in s for s in said_of(folder))


def said_of(folder, **options):
    return looked(of_texts(folder, **options))["mend"]


def test_texts_over_the_limit(folder):
    texts(folder, TRAIN)
    said = said_of(folder, max_tokens=12)
    assert said[0].startswith("60 of 60 examples of train are longer than data.max_tokens=12")


def test_labels_that_are_all_the_same(folder):
    texts(folder, [(text, "1.5") for text, _ in TRAIN], [(text, "1.5") for text, _ in DEV])
    data = tasks.TextRegressionData(str(folder), tokenizer="char")
    (folder / "test.tsv").unlink()
    assert any("have the same label" in said for said in looked(data)["mend"])


def boxes(folder, categories, boxes):
    for split in ("train", "val"):
        (folder / split).mkdir()
        for i in range(4):
            Image.new("RGB", (32, 32), (i, len(split), 0)).save(folder / split / f"{i}.png")
        content = {
            "images": [{"id": i, "file_name": f"{i}.png"} for i in range(4)],
            "categories": [{"id": i, "name": name} for i, name in enumerate(categories)],
            "annotations": [
                {"id": n, "image_id": n % 4, "category_id": 0, "bbox": box}
                for n, box in enumerate(boxes)
            ],
        }
        (folder / f"{split}.json").write_text(json.dumps(content))
    return looked(tasks.DetectionData(str(folder), image_size=(32, 32)))["mend"]


def test_boxes_without_area(folder):
    said = boxes(folder, ["cat"], [[1, 2, 9, 9]] * 4 + [[3, 3, 0, 5]])
    assert len(said) == 2 and all("1 of 5 boxes have no area" in one for one in said)


def test_a_class_without_examples(folder):
    (said,) = boxes(folder, ["cat", "dog"], [[1, 2, 9, 9]] * 4)
    assert said.startswith("no example of train has the class 'dog'")


# --- The trial ---


def config(folder, **options) -> str:
    model = {"config": STACK, "pooling": "mean", "masked_head": False}
    given = {
        "model": {
            "class_path": "tasks.TextClassification",
            "init_args": {
                "model": {"class_path": "family.BERT", "init_args": model},
                **{"lr": 3e-3, **options},
            },
        },
        "data": {
            "class_path": "tasks.TextClassificationData",
            "init_args": {"root": str(folder), "tokenizer": "char", "batch_size": 8},
        },
        "trainer": QUIET,
    }
    Path("config.yaml").write_text(yaml.safe_dump(given))
    return "config.yaml"


def checked(*arguments, capsys):
    code = 0
    try:
        main(["check", *arguments])
    except SystemExit as ended:
        code = ended.code
    return code, capsys.readouterr().out


def test_a_good_config_goes(folder, capsys):
    texts(folder, TRAIN)
    before = {*Path().iterdir()}
    code, out = checked("--config", config(folder), capsys=capsys)
    assert code == 0 and out.endswith("\ngo\n") and "train: 60 examples" in out
    assert "one batch, 13 steps: the loss goes from 0." in out
    assert "estimated, from these steps: " in out and "for 100 steps" in out
    assert {*Path().iterdir()} == before | {Path("config.yaml")}


@pytest.mark.parametrize("lr", [1e3, 0.0])
def test_an_absurd_rate(folder, capsys, lr):
    texts(folder, TRAIN)
    code, out = checked("--config", config(folder, lr=lr), "--json", capsys=capsys)
    (said,) = json.loads(out)["mend"]
    assert code == 1 and "model.lr" in said


def test_what_the_reader_refuses_is_to_be_mended(folder, capsys):
    texts(folder, [(text, "circle") for text, _ in TRAIN])
    code, out = checked("--config", config(folder), capsys=capsys)
    assert code == 1 and "to mend:\n  - " in out


def test_numbers_of_a_batch_that_are_not_finite():
    import torch

    batch = {"pixel_values": torch.tensor([1.0, float("nan")]), "labels": torch.tensor([1])}
    assert trial.not_finite(batch) == ["pixel_values"]
    assert trial.not_finite({"targets": [{"boxes": torch.tensor([float("inf")])}]}) == ["boxes"]
