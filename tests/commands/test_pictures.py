"""The members that see, from fit to the command that uses what was trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

import family
import tasks
from family.inputs.preprocess import Preprocess
from tasks.cli import main
from tasks.data import shapes
from tasks.data.segmentation import SegmentationData

SMALL = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=2",
    "--trainer.limit_predict_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    "--trainer.num_sanity_val_steps=0",
    "--data.examples=40",
    "--data.batch_size=8",
]
TINY = {"dim": 16, "depth": 1, "heads": 2, "ffn_dim": 32}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        shapes.draw(shapes.sample(i, split="test"), 96).save(tmp_path / f"pictures/{i}.png")
    return tmp_path


def fit(task, folder, *more, stacks=("config",)):
    tiny = [f"--model.model.init_args.{s}.{n}={value}" for s in stacks for n, value in TINY.items()]
    main(["fit", "--config", f"{task}/shapes", "--run_folder", "run", *SMALL, *tiny, *more])
    record = json.loads((folder / "run/metrics-fit.json").read_text())
    assert record["step"] == 2
    content = torch.load(folder / "run/checkpoints/best.ckpt", weights_only=True)
    assert content["family"]["assets"]["preprocess"]["size"]
    return record["metrics"]


def test_classification(folder, capsys):
    metrics = fit("image_classification", folder)
    assert 0 <= metrics["val/accuracy"] <= metrics["val/accuracy_top5"] <= 1
    assert Image.open(folder / "run/samples/step-000002-predictions.png").width > 300
    capsys.readouterr()
    main(["classify", "run", "pictures", "--top", "8"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert sum(float(part.split()[-1]) for part in lines[0].split(",")) == pytest.approx(
        1, abs=0.01
    )
    config = ["--config", "run/config.yaml", "--ckpt_path", "run", *SMALL]
    main(["test", *config, "--run_folder", "tested"])
    assert (
        "test/accuracy" in json.loads((folder / "tested/metrics-test.json").read_text())["metrics"]
    )
    main(["predict", *config, "--run_folder", "predicted"])
    rows = (folder / "predicted/predictions.jsonl").read_text().splitlines()
    assert len(rows) == 8
    assert json.loads(rows[0])["label"] in shapes.CLASSES


def test_detection(folder, capsys):
    metrics = fit("detection", folder)
    assert {"val/map", "val/map_50", "val/mar_100"} <= metrics.keys()
    assert (folder / "run/samples/step-000002-boxes.png").exists()
    main(["detect", "run", "pictures/0.png", "--out", "out", "--threshold", "0"])
    record = json.loads((folder / "out/0.json").read_text())
    assert (record["height"], record["width"]) == (96, 96)
    for row in record["objects"]:
        x0, y0, x1, y1 = row["box"]
        assert 0 <= x0 <= x1 <= 96
        assert 0 <= y0 <= y1 <= 96
        assert row["label"] in shapes.CLASSES
    assert Image.open(folder / "out/0.png").size == (96, 96)


def test_segmentation(folder):
    metrics = fit("segmentation", folder)
    assert 0 <= metrics["val/miou"] <= 1
    assert (folder / "run/samples/step-000002-masks.png").exists()
    main(["segment", "run", "pictures/0.png", "--out", "out"])
    mask = np.asarray(Image.open(folder / "out/0-mask.png"))
    assert mask.shape == (96, 96)
    assert mask.max() <= len(shapes.CLASSES)


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.slow
def test_image_text(folder, capsys, loss):
    bias = ["--model.model.init_args.logit_bias=true"] if loss == "sigmoid" else []
    options = [f"--model.loss={loss}", *bias]
    metrics = fit("image_text", folder, *options, stacks=("image", "text"))
    assert metrics["val/recall@1"] <= metrics["val/recall@5"] <= metrics["val/recall@10"]
    assert 0 <= metrics["val/zero_shot_accuracy"] <= 1
    assert (folder / "run/samples/step-000002-retrieval.png").exists()
    capsys.readouterr()
    main(["search", "run", "a red circle", "pictures", "--out", "found.png"])
    out = capsys.readouterr().out
    assert all(f"{i}.png" in out for i in range(3))
    assert Image.open(folder / "found.png").width > 300


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_it_was_not(folder):
    """In mid-epoch, with augmentation: the same weights to the bit."""
    config = ["fit", "--config", "image_classification/shapes", *SMALL, "--model.schedule=constant"]
    main([*config, "--trainer.max_steps=5", "--run_folder", "whole"])
    main([*config, "--trainer.max_steps=3", "--run_folder", "half"])
    more = ["--trainer.max_steps=5", "--ckpt_path", "half/checkpoints/last.ckpt"]
    main([*config, *more, "--run_folder", "rest"])
    states = [
        torch.load(folder / run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in ("whole", "half", "rest")
    ]
    changed = [k for k in states[0] if not torch.equal(states[0][k], states[1][k])]
    assert changed
    assert all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code != 0
    return capsys.readouterr().err


def test_mistakes_end_in_one_sentence(folder, capsys):
    fit("image_classification", folder)
    (folder / "bad.png").write_bytes(b"no picture")
    assert "bad.png is not a picture" in refused(["classify", "run", "bad.png"], capsys)
    assert "none.png does not exist" in refused(["classify", "run", "none.png"], capsys)
    assert "needs Detection" in refused(["detect", "run", "pictures"], capsys)
    config = ["--config", "image_classification/shapes", "--model.model.init_args.patch_size=7"]
    assert "7 x 7" in refused(["fit", *config, *SMALL], capsys)


def test_instances(folder, capsys):
    more = ["--model.model.init_args.masked_attention=never"]
    config = ["--config", "segmentation/shapes_eomt", "--run_folder", "run", *SMALL, *more]
    main(["fit", *config])
    metrics = json.loads((folder / "run/metrics-fit.json").read_text())["metrics"]
    assert 0 <= metrics["val/mask_map"] <= metrics["val/mask_map_50"] <= 1
    assert "val/miou" in metrics
    loaded = family.load(folder / "run")
    pictures = sorted((folder / "pictures").iterdir())
    found = loaded.predict(pictures, instances=True, threshold=0.0)
    assert len(found) == 3 and {one["label"] for one in found[0]} <= {*shapes.CLASSES}
    family.save_pretrained(loaded.model, folder / "saved")
    again = family.load(folder / "saved").predict(pictures, instances=True, threshold=0.0)
    assert [len(one) for one in again] == [len(one) for one in found]
    capsys.readouterr()
    out = ["--instances", "--out", "out", "--format", "jsonl", "--device", "cpu"]
    main(["segment", "run", "pictures", *out, "--threshold", "0"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for i, (line, objects) in enumerate(zip(lines, found, strict=True)):
        assert [one["label"] for one in line["objects"]] == [one["label"] for one in objects]
        written = json.loads((folder / f"out/{i}.json").read_text())["objects"]
        numbers = np.asarray(Image.open(folder / f"out/{i}-mask.png"))
        for number, (row, one) in enumerate(zip(written, objects, strict=True), 1):
            assert row["number"] == number and row["area"] == int(one["mask"].sum())
            assert one["mask"].numpy()[numbers == number].all()
        assert (numbers == 1).sum() == (written[0]["area"] if written else 0)
    rows = json.loads((folder / "out/coco-results.json").read_text())
    assert len(rows) == sum(map(len, found))
    main(["segment", "run", "pictures/0.png", *out, "--threshold", "1"])  # of nothing too
    main(["segment", "run", "pictures/0.png", "--out", "classes", "--device", "cpu"])
    assert np.asarray(Image.open(folder / "classes/0-mask.png")).max() <= 8
    assert "give --instances too" in refused(
        ["segment", "run", "pictures", *out[1:3], "--threshold", "0.3"], capsys
    )


def test_a_model_without_instances_says_so(folder, capsys):
    config = ["--config", "segmentation/shapes", "--data.instances=true", *SMALL]
    assert "gives the classes of pixels alone" in refused(["fit", *config], capsys)
    model = family.segmenter_tiny(3, image_size=16, patch_size=8, dim=16, depth=1, heads=2)
    model.preprocess = Preprocess((16, 16))
    with pytest.raises(ValueError, match="finds no instances"):
        family.load(model).predict([folder / "pictures/0.png"], instances=True)


@pytest.mark.parametrize("ignore", [[0], [1, 255], []])
def test_masks_are_written_with_the_ids_that_the_data_have(folder, ignore):
    """An ignored value moves the labels, but not what stands in files."""
    rng = np.random.default_rng(0)
    kept = [value for value in (0, 1, 2, 3) if value not in ignore]
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (folder / "data" / split / kind).mkdir(parents=True)
        for i in range(2):
            mask = rng.integers(0, 4, (16, 16)).astype(np.uint8)
            mask[0, :4] = range(4)
            Image.fromarray(mask).save(folder / f"data/{split}/masks/{i}.png")
            Image.fromarray(mask * 60).convert("RGB").save(folder / f"data/{split}/images/{i}.png")
    data = SegmentationData(str(folder / "data"), 16, 2, ignore=ignore)
    assert data.assets()["category_ids"] == kept
    model = family.segmenter_tiny(len(kept), image_size=16, patch_size=8, dim=16, depth=1, heads=2)
    task = tasks.Segmentation(model, warmup_steps=0)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(task, data)
    trainer.save_checkpoint(folder / "run.ckpt")
    main(["segment", "run.ckpt", "data/val/images", "--out", "out", "--device", "cpu"])
    loaded = family.load(folder / "run.ckpt")
    for i, inside in enumerate(loaded.predict(sorted((folder / "data/val/images").iterdir()))):
        written = np.asarray(Image.open(folder / f"out/{i}-mask.png"))
        assert {*np.unique(written)} <= {*kept}
        assert (written == np.array(kept)[inside.numpy()]).all()
