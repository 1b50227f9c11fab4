"""Several labels an example, and numbers of pictures: losses, scores, data, from training to the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

import family
import tasks
from family.heads.problem import MULTI, REGRESSION
from tasks.cli import main
from tasks.compare.metrics import METRICS
from tasks.data import shapes
from tasks.errors import UserError
from tasks.training.problem import LabelScores, label_loss, monitor_of

SMALL = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--data.examples=40",
    "--data.batch_size=8",
    "--model.model.config.depth=1",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trainer(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **options)


class Pixels(nn.Module):
    """Somebody else's model of pictures."""

    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, pixel_values):
        return self.head(pixel_values.mean((2, 3)))


# --- Losses and scores ---


def test_the_loss_is_the_plain_formula_and_that_of_transformers():
    transformers = pytest.importorskip("transformers")
    options = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **options,
        intermediate_size=20,
        image_size=16,
        patch_size=8,
        num_labels=3,
        problem_type=MULTI,
    )
    theirs = transformers.ViTForImageClassification(config).eval()
    pixels, labels = (
        torch.randn(4, 3, 16, 16),
        torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
    )
    ours = tasks.ImageClassification(family.from_pretrained(theirs))
    ours.adapt_model()
    batch = {"pixel_values": pixels, "labels": labels.float()}
    loss, logits = ours.loss(batch)["loss"], ours.logits(batch)
    torch.testing.assert_close(loss, theirs(pixels, labels=labels.float()).loss)
    p = 1 / (1 + (-logits).exp())
    plain = -torch.where(labels > 0, p.log(), (1 - p).log())
    torch.testing.assert_close(loss, plain.mean())
    weights = torch.tensor([1.0, 2.0, 0.5])
    torch.testing.assert_close(label_loss(logits, labels, 0, weights), (plain * weights).mean())
    soft = -(0.95 * torch.where(labels > 0, p.log(), (1 - p).log())) - 0.05 * torch.where(
        labels > 0, (1 - p).log(), p.log()
    )
    torch.testing.assert_close(label_loss(logits, labels, 0.1), soft.mean())
    with pytest.raises(UserError, match=r"gives \(4, 3\), but the labels are \(4,\): .* 0 or 1"):
        label_loss(logits, labels[:, 0])
    config.num_labels, config.problem_type = 1, REGRESSION
    theirs = transformers.ViTForImageClassification(config).eval()
    ours = tasks.ImageRegression(family.from_pretrained(theirs))
    ours.adapt_model()
    numbers = torch.tensor([0.5, 3.0, -1.0, 2.0])
    loss = ours.loss({"pixel_values": pixels, "labels": numbers})["loss"]
    torch.testing.assert_close(loss, theirs(pixels, labels=numbers).loss)


def test_scores_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    true = random.integers(0, 2, (50, 4))
    true[:, 3] = 0  # a label that never occurs is none of the mean
    chances = np.clip(true * 0.3 + random.random((50, 4)) * 0.7, 0, 1).astype(np.float32)
    scores = LabelScores(4)
    for rows in (slice(0, 20), slice(20, 50)):
        scores.update(torch.from_numpy(chances[rows]), torch.from_numpy(true[rows]).float())
    found = {name: float(value) for name, value in scores.compute().items()}
    metrics = pytest.importorskip("sklearn.metrics")
    expected = metrics.average_precision_score(true[:, :3], chances[:, :3], average="macro")
    assert found["mean_average_precision"] == pytest.approx(expected, abs=1e-5)
    for kind in ("micro", "macro"):
        score = metrics.f1_score(true, chances > 0.5, average=kind, zero_division=0)
        assert found[f"f1_{kind}"] == pytest.approx(score, abs=1e-5)


def test_tests_say_enough_for_the_bootstrap():
    rows = [{"labels_right": 2, "labels_both": 4}, {"labels_right": 4, "labels_both": 5}]
    assert METRICS["f1_micro"](rows)(np.array([[1.0, 1.0], [2.0, 0.0]])).tolist() == [6 / 9, 0.5]
    rows = [{"squared_error": 1.0}, {"squared_error": 7.0}]
    assert METRICS["rmse"](rows)(np.ones((1, 2))).tolist() == [2.0]


# --- Data ---


def texts(root, rows, name="train", head="text,label"):
    (root / f"{name}.csv").write_text("\n".join([head, *rows]) + "\n")


def text_data(root, **options):
    return tasks.TextClassificationData(str(root), tokenizer="char", **options)


def test_texts_have_lists_columns_or_json(folder):
    texts(folder, ["one,a;b", "two,", "three,c", 'four,"[""a"", ""c""]"'])
    data = text_data(folder, multi_label=True, label_separator=";", val="train")
    expected = [[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1]]
    assert data.classes == ["a", "b", "c"] and data.labels("train") == expected
    assert data.class_counts() == [2, 1, 2] and data.assets()["problem_type"] == MULTI
    batch = next(iter(data.loader("val")))
    assert batch["labels"].dtype == torch.float32 and batch["labels"].shape == (4, 3)
    texts(folder, ["one,1,0", "two,0,0", "three,0,1"], head="text,toxic,rude")
    data = text_data(folder, label_columns=["toxic", "rude"], val="train")
    assert data.classes == ["toxic", "rude"]
    assert data.labels("train") == [[1, 0], [0, 0], [0, 1]]
    rows = [{"text": "one", "label": ["b", "a"]}, {"text": "two", "label": []}]
    (folder / "train.csv").unlink()
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    data = text_data(folder, multi_label=True, val="train")
    assert data.labels("train") == [[1, 1], [0, 0]]


def test_what_is_wrong_with_labels_is_one_sentence(folder):
    texts(folder, ["one,a,b", "two,b,a"], head="text,label,more")
    texts(folder, ['one,"a,zebra",b'], "val", head="text,label,more")
    with pytest.raises(
        UserError, match=r"val.csv line 2 has the label 'zebra', which is none of the 2"
    ):
        text_data(folder, multi_label=True).setup("fit")
    with pytest.raises(
        UserError, match=r"train.csv line 2 has label='a', which is neither 0 nor 1"
    ):
        text_data(folder, label_columns=["label", "more"]).setup("fit")
    with pytest.raises(UserError, match="no column label_columns='other'"):
        text_data(folder, label_columns=["label", "other"]).setup("fit")
    with pytest.raises(UserError, match="label_column beside data.label_columns: give one"):
        text_data(folder, label_column="label", label_columns=["more"])
    texts(folder, ["one,a,b", "two,a,a"], head="text,label,more")
    with pytest.raises(UserError, match="train.csv has the label 'a' alone: .* two at least"):
        text_data(folder, multi_label=True).setup("fit")
    texts(folder, ["one,a,b", "two,,a"], head="text,label,more")
    with pytest.raises(UserError, match="train.csv line 3 has an empty label"):
        text_data(folder).setup("fit")
    with pytest.raises(UserError, match="any of several labels .* set data.multi_label=true"):
        text_data(folder).use_assets({"problem_type": MULTI})


@pytest.fixture
def pictures(folder):
    for i in range(6):
        Image.new("RGB", (8, 8), (40 * i, 90, 0)).save(folder / f"{i}.png")
    return folder


def written(root, column, values, name="train"):
    rows = [f"{i}.png,{value}" for i, value in enumerate(values)]
    (root / f"{name}.csv").write_text("\n".join([f"file,{column}", *rows]) + "\n")


def picture_data(root, kind=tasks.ImageClassificationData, **options):
    return kind(str(root), image_size=8, batch_size=3, augment="none", **options)


def test_pictures_of_a_table(pictures):
    written(pictures, "label", ["a;b", "", "c", "a", "b", "c"])
    written(pictures, "label", ["c;a", ""], "val")
    data = picture_data(pictures, multi_label=True, label_separator=";")
    assert data.classes == ["a", "b", "c"]
    assert data.split("train").labels.tolist()[:3] == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert data.split("val").labels.tolist() == [[1, 0, 1], [0, 0, 0]]  # by the training's names
    assert next(iter(data.loader("train")))["labels"].shape == (3, 3)
    written(
        pictures, "label", ["c", ""], "val"
    )  # a split to validate on may have one label, or none
    data = picture_data(pictures, multi_label=True, label_separator=";")
    assert data.split("val").labels.tolist() == [[0, 0, 1], [0, 0, 0]]
    mixed = picture_data(pictures, multi_label=True, label_separator=";", mixup=0.4)
    assert next(iter(mixed.loader("train")))["labels"].dtype == torch.float32
    written(pictures, "label", ["a", "b", "a", "a", "b", "b"])
    (pictures / "val.csv").unlink()
    data = picture_data(pictures, val_fraction=0.5, split_seed=0)
    assert data.layout == "table" and data.classes == ["a", "b"]
    assert next(iter(data.loader("val")))["labels"].dtype == torch.int64
    written(pictures, "score", [1, 2.5, 3, 4, 5, 6])
    data = picture_data(pictures, tasks.ImageRegressionData, val_fraction=0.5, split_seed=0)
    batch = next(iter(data.loader("val")))
    assert batch["labels"].dtype == torch.float32 and data.model_arguments["num_classes"] == 1


def test_what_is_wrong_with_tables_of_pictures_is_one_sentence(pictures):
    written(pictures, "label", ["a;b", "c"])
    written(pictures, "label", ["a;zebra"], "val")
    several = {"multi_label": True, "label_separator": ";"}
    with pytest.raises(UserError, match="'zebra' of the val split .* none of the 3 classes"):
        picture_data(pictures, **several).setup("fit")
    written(pictures, "label", ["a", ""])
    with pytest.raises(UserError, match="train.csv line 3 has an empty label"):
        picture_data(pictures, layout="table").setup("fit")
    for labels in (["a"], ["a", "b"]):
        rows = [{"file": "0.png", "label": "x"}, {"file": "1.png", "label": labels}]
        (pictures / "train.csv").unlink(missing_ok=True)
        (pictures / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(
            UserError, match=r"train.jsonl line 2 has a list of labels, .*multi_label"
        ):
            picture_data(pictures, layout="table").setup("fit")
    (pictures / "train.jsonl").unlink()
    for value in ("nan", "inf", "many"):
        written(pictures, "score", [1, value])
        with pytest.raises(UserError, match=f"line 3 has the label '{value}', which is no number"):
            picture_data(pictures, tasks.ImageRegressionData).setup("fit")
    (pictures / "train.csv").write_text("file,label\nmissing.png,1\n")
    with pytest.raises(UserError, match="line 2 names .*missing.png, which does not exist"):
        picture_data(pictures, tasks.ImageRegressionData).setup("fit")
    (pictures / "train.csv").unlink()
    (pictures / "cat").mkdir()
    with pytest.raises(UserError, match="multi_label needs a table"):
        picture_data(pictures, **several, layout="folder").setup("fit")


def test_the_built_in_world():
    data = tasks.ImageClassificationData(image_size=16, examples=50, multi_label=True)
    counted = tasks.ImageRegressionData(image_size=16, examples=50)
    for i in range(20):
        things = shapes.sample(i).objects
        row = data.split("train").labels[i]
        there = {name for name, one in zip(shapes.CLASSES, row, strict=True) if one}
        assert there == {thing.shape for thing in things}
        assert counted.split("train").labels[i] == len(things)
    said = tasks.TextClassificationData(examples=50, multi_label=True)
    for row, labels in zip(said.rows("train"), said.labels("train"), strict=True):
        for name, one in zip(said.classes, labels, strict=True):
            assert bool(one) == (name in row.text)


# --- Training ---


def test_somebody_elses_model_learns_several_labels_and_numbers(pictures):
    pl.seed_everything(0)
    written(pictures, "label", ["dark", "dark", "", "", "red", "red"])
    written(pictures, "label", ["dark", "dark", "", "", "red", "red"], "val")
    written(pictures, "label", ["dark", "dark", "", "", "red", "red"], "test")
    data = picture_data(pictures, multi_label=True)
    task = tasks.ImageClassification(Pixels, lr=0.3, warmup_steps=0, class_weights="balanced")
    assert monitor_of(task, data) == ("val/mean_average_precision", "max")
    assert monitor_of(task, None) == ("val/accuracy", "max")
    runner = trainer(max_epochs=40)
    runner.fit(task, data)
    assert task.model.problem_type == MULTI
    assert runner.callback_metrics["val/mean_average_precision"] > 0.95
    (tested,) = runner.test(task, data, verbose=False)
    assert tested["test/f1_micro"] > 0.9 and "test/accuracy" not in tested
    assert [row["label"] for row in task.tables["labels"]] == ["dark", "red"]
    assert task.tables["worst"][0]["loss"] >= task.tables["worst"][-1]["loss"]
    rows = [row for batch in runner.predict(task, data) for row in batch]
    assert {*rows[0]["probabilities"]} == {"dark", "red"}
    assert sum(rows[2]["probabilities"].values()) < 0.9  # neither: they exclude nothing
    for name in ("train", "val", "test"):
        written(pictures, "score", range(6), name)
    data = picture_data(pictures, tasks.ImageRegressionData)
    task = tasks.ImageRegression(Pixels, lr=0.3, warmup_steps=0)
    runner = trainer(max_epochs=40)
    runner.fit(task, data)
    assert runner.callback_metrics["val/spearman"] > 0.99
    (tested,) = runner.test(task, data, verbose=False)
    errors = [row["made"] - row["true"] for row in task.tables["worst"]]
    assert tested["test/rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))), abs=1e-4)
    assert "predictions" in task.pictures


def said(capsys, *arguments):
    capsys.readouterr()
    main([*map(str, arguments)])
    return capsys.readouterr().out


def test_texts_from_fit_to_the_command(folder, capsys):
    main(["fit", "--config=text_classification/shapes_labels", "--run_folder=run", *SMALL])
    metrics = json.loads((folder / "run/metrics-fit.json").read_text())["metrics"]
    assert {"val/mean_average_precision", "val/f1_micro", "val/f1_macro"} <= metrics.keys()
    assert (folder / "run/checkpoints/best.ckpt").is_file()
    loaded = family.load("run")
    assert loaded.model.problem_type == loaded.assets["problem_type"] == MULTI
    (row,) = loaded.predict(["a small red star"])
    logits = loaded.model(
        *family.inference.batches.text_batches(loaded.model, ["a small red star"], 1).__next__()
    )
    assert [*row["probabilities"].values()] == pytest.approx(logits.sigmoid()[0].tolist(), abs=1e-5)
    line = said(capsys, "classify", "run", "a small red star", "--top=1")
    assert line == f"a small red star\t{row['label']} {row['score']:.3f}\n"
    # Exported, and trained on for one class each, it says what it is taught.
    family.save_pretrained(loaded.model, "ours")
    assert family.load("ours").predict(["a small red star"]) == [row]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", ["image_classification/shapes_labels", "image_regression/shapes"]
)
def test_pictures_from_fit_to_the_command(folder, capsys, config):
    main(["fit", f"--config={config}", "--run_folder=run", "--data.image_size=16", *SMALL])
    loaded = family.load("run")
    picture = shapes.draw(shapes.sample(0), 16)
    picture.save("a.png")
    (row,) = loaded.predict(["a.png"])
    line = said(capsys, "classify", "run", "a.png", "--top=1")
    if config.startswith("image_regression"):
        assert loaded.model.problem_type == REGRESSION and line == f"a.png\t{row:.3f}\n"
        family.save_pretrained(loaded.model, "ours")
        assert family.load("ours").task == "ImageRegression"
        assert family.load("ours").predict(["a.png"]) == [row]
    else:
        assert loaded.model.problem_type == MULTI
        assert line == f"a.png\t{row['label']} {row['score']:.3f}\n"


def test_a_source_is_taught_what_the_data_say(folder):
    model = family.vit_tiny(8, image_size=8, patch_size=4, dim=8, depth=1, heads=2)
    model.labels, model.problem_type = [*"abcdefgh"], MULTI
    assert tasks.ImageClassification(model).model is None
    task = tasks.ImageClassification(model, lr=0.0, warmup_steps=0)
    trainer(max_steps=1, limit_val_batches=0).fit(
        task, tasks.ImageClassificationData(image_size=8, examples=16, batch_size=8)
    )
    assert task.model.problem_type is None and not task.several
