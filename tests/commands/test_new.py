"""``family new``: a config fitted to a folder of data, which fit takes as it is."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

import family
import tasks
from tasks.cli import main
from tasks.commands.fitted import Found, choices, has, put, rounded
from tasks.commands.new import base_of

WORDS = [
    "a",
    "red",
    "circle",
    "and",
    "two",
    "small",
    "blue",
    "squares",
    "stand",
    "under",
    "the",
    "green",
    "star",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random.seed(0)
    return tmp_path


def words(count):
    return " ".join(random.choice(WORDS) for _ in range(count))


def reviews():
    rows = [f"{words(random.randint(70, 90))} {i}\t{'abc'[i % 3]}\n" for i in range(60)]
    with open("reviews.tsv", "w") as file:
        file.write("said\tstars\n" + "".join(rows))


def fitted(file):
    with open(file) as opened:
        return yaml.safe_load(opened)


def test_texts(folder, capsys):
    reviews()
    call = ["new", "text_classification", "--data=reviews.tsv", "--minutes=0.1", "--out=mine.yaml"]
    columns = ["--data.text_column=said", "--data.label_column=stars"]
    main([*call, *columns, "--model.lr=0.002"])
    said = capsys.readouterr().out
    assert "3 classes (a, b, c)" in said and "family fit --config mine.yaml" in said
    config = fitted("mine.yaml")
    data, model = config["data"]["init_args"], config["model"]["init_args"]
    assert data["root"] == str(folder / "reviews.tsv") and data["label_column"] == "stars"
    assert 80 <= data["max_tokens"] <= 256 and "examples" not in data
    assert model["model"]["init_args"]["config"]["max_tokens"] == data["max_tokens"]
    assert data["batch_size"] <= 15 and model["lr"] == 0.002
    assert config["trainer"]["max_steps"] >= 200
    small = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--run_folder=run"]
    main(["fit", "--config=mine.yaml", *small, "--trainer.limit_val_batches=1"])
    assert (folder / "run/checkpoints/last.ckpt").exists()
    with pytest.raises(SystemExit):
        main(call)
    assert "mine.yaml exists" in capsys.readouterr().err


def pictures():
    for split, count in (("train", 12), ("val", 4)):
        for label in "ab":
            place = folder_of(f"pictures/{split}/{label}")
            for i in range(count):
                Image.new("RGB", (60, 41), (i * 9, 3, 200 * (label == "a"))).save(
                    place / f"{i}.png"
                )


def folder_of(name):
    place = Path(name)
    place.mkdir(parents=True)
    return place


def documents():
    place = folder_of("texts")
    (place / "one.txt").write_text("\n".join(words(30) for _ in range(120)))


def pairs():
    place = folder_of("pairs")
    for split, count in (("train", 60), ("val", 9)):
        rows = "".join(f"{words(6)} {i}\t{words(7)} {i}\n" for i in range(count))
        (place / f"{split}.tsv").write_text("de\ten\n" + rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "make", "place", "options", "wanted"),
    [
        (
            "image_classification",
            pictures,
            "pictures",
            [],
            {"image_size": [48, 64], "batch_size": 6},
        ),
        ("language_modeling", documents, "texts", [], {"tokenizer": "char"}),
        (
            "translation",
            pairs,
            "pairs",
            ["--data.source=de", "--data.target=en"],
            {"vocab_size": 300},
        ),
    ],
)
def test_other_data(task, make, place, options, wanted, capsys):
    make()
    main(["new", task, f"--data={place}", "--minutes=0.1", *options])
    data = fitted(f"{task}.yaml")["data"]["init_args"]
    assert {name: data[name] for name in wanted} == wanted
    main(["fit", f"--config={task}.yaml", "--trainer.fast_dev_run=true"])


def drawn(place, count):
    """Pictures with one square each, and its corners."""
    for i in range(count):
        picture = Image.new("RGB", (48, 40), (30, 90, 40))
        left, top = 2 + 3 * (i % 8), 4 + 2 * (i % 5)
        picture.paste((220, 60, 20 * (i % 2)), (left, top, left + 14, top + 12))
        picture.save(place / f"{i}.png")
        yield i, [left, top, 14, 12]


def boxes():
    for split, count in (("train", 24), ("val", 6)):
        content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}],
        }
        for i, box in drawn(folder_of(f"boxes/images/{split}"), count):
            content["images"].append({"id": i, "file_name": f"{i}.png", "width": 48, "height": 40})
            one = {"id": i, "image_id": i, "category_id": (3, 7)[i % 2], "bbox": box, "area": 168}
            content["annotations"].append({**one, "iscrowd": 0})
        (folder_of_file(f"boxes/annotations/instances_{split}.json")).write_text(
            json.dumps(content)
        )


def folder_of_file(name):
    place = Path(name)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def masks():
    Path("masks").mkdir()
    Path("masks/classes.txt").write_text("ground\nsquare\n")
    for split, count in (("train", 24), ("val", 6)):
        place = folder_of(f"masks/{split}/masks")
        for i, (left, top, wide, high) in drawn(folder_of(f"masks/{split}/images"), count):
            mask = Image.new("L", (48, 40), 0)
            mask.paste(1, (left, top, left + wide, top + high))
            mask.save(place / f"{i}.png")


def tagged():
    place = folder_of("tagged")
    for split, count in (("train", 60), ("val", 12)):
        rows = []
        for _ in range(count):
            some = [random.choice(WORDS) for _ in range(6)]
            tags = ["B-THING" if word in ("circle", "star", "squares") else "O" for word in some]
            rows.append("\n".join(f"{w}\t{t}" for w, t in zip(some, tags, strict=True)) + "\n")
        (place / f"{split}.tsv").write_text("\n".join(rows))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "make", "metric"),
    [
        ("detection", boxes, "val/map"),
        ("segmentation", masks, "val/miou"),
        ("tagging", tagged, "val/f1"),
    ],
)
def test_a_new_config_is_trained_to_its_end(task, make, metric):
    """By no other option than those that new wrote."""
    make()
    place = {"detection": "boxes", "segmentation": "masks", "tagging": "tagged"}[task]
    main(["new", task, f"--data={place}", "--minutes=0.1"])
    steps = fitted(f"{task}.yaml")["trainer"]["max_steps"]
    main(
        ["fit", f"--config={task}.yaml", "--run_folder=run", "--trainer.enable_progress_bar=false"]
    )
    told = json.loads(Path("run/metrics-fit.json").read_text())
    assert metric in told["metrics"]
    assert torch.load("run/checkpoints/last.ckpt", weights_only=False)["global_step"] == steps
    assert family.load("run").task.lower() == task


def test_pictures_that_are_read_by_their_paths_lie_as_they_are():
    for split, count in (("train", 3), ("val", 1)):
        for kind, mode in (("images", "RGB"), ("masks", "L")):
            place = folder_of(f"seg/{split}/{kind}")
            for i in range(count):
                Image.new(mode, (90, 60), 1).save(place / f"{i}.png")
    data = tasks.SegmentationData("seg")
    data.setup("fit")
    found = Found(data)
    assert found.sides == [(90, 60)] * 3 and found.examples == {"train": 3, "val": 1}
    config = {"data": {"init_args": {"image_size": 64, "batch_size": 48}}}
    assert choices(config, data, found) == {"data.image_size": [64, 96], "data.batch_size": 1}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["image_clasification", "--data=."], "Did you mean 'image_classification'?"),
        (["compare", "--data=."], "there is no task 'compare'"),
        (["tagging", "--data=none"], "--data none does not exist"),
    ],
)
def test_one_sentence(call, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["new", *call])
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_every_task_has_a_config_to_begin_with():
    names = ("detection", "segmentation", "tagging", "question_answering", "captioning")
    for task in (*names, "language_modeling", "text_to_image"):
        assert base_of(task).is_file()


def test_paths_of_options():
    config = {"data": {"class_path": "x", "init_args": {"a": 1}}, "trainer": {}}
    put(config, "data.b", 2)
    put(config, "trainer.max_steps", 3)
    assert config["data"]["init_args"] == {"a": 1, "b": 2} and config["trainer"] == {"max_steps": 3}
    assert (
        has(config, "data.b")
        and not has(config, "data.c")
        and not has(config, "trainer.max_steps.x")
    )
    assert [rounded(side, 32, (64, 256)) for side in (10, 150, 900)] == [64, 160, 256]
