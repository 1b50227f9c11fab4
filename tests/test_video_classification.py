"""Clips, from fit to the command that tells what moves which way."""

from __future__ import annotations

import json
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader

import family
import tasks
from tasks.cli import main
from tasks.data import shapes_video
from tasks.data.shapes_video import CLASSES
from tasks.errors import UserError


def write(folder, scene):
    folder.mkdir(parents=True)
    for i, frame in enumerate(shapes_video.draw(scene, 12, 32)):
        Image.fromarray(frame).save(folder / f"{i}.png")


def test_from_fit_to_classify(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(
        [
            "fit",
            "--config=video_classification/shapes",
            "--trainer.max_steps=2",
            "--trainer.val_check_interval=2",
            "--trainer.limit_val_batches=2",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
            "--trainer.accelerator=cpu",
            "--data.examples=40",
            "--data.batch_size=8",
            "--run_folder=run",
        ]
    )
    metrics = json.loads((tmp_path / "run/metrics-fit.json").read_text())["metrics"]
    assert 0 <= metrics["val/accuracy"] <= metrics["val/accuracy_top5"] <= 1
    page = Image.open(tmp_path / "run/samples/step-000002-predictions.png")
    assert page.width > 600
    for i in range(2):
        write(tmp_path / f"clips/{i}", shapes_video.sample(i, split="test"))
    capsys.readouterr()
    main(["classify", "run", "clips", "--format", "jsonl"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["file"] for row in rows] == ["clips/0", "clips/1"]
    assert all([*row["probabilities"]] == [*CLASSES] for row in rows)
    loaded = family.load("run")
    assert loaded.predict(["clips/0"])[0]["label"] == rows[0]["label"]
    frames = [Image.open(f"clips/0/{i}.png") for i in range(12)]
    assert loaded.predict([frames]) == loaded.predict(["clips/0"])
    (tmp_path / "short").mkdir()
    frames[0].save(tmp_path / "short/0.png")
    main(["classify", "run", "clips/0", "short", "--on_bad", "skip"])
    shown = capsys.readouterr()
    assert shown.out.startswith("clips/0\t") and "short has 1 frame, but 8" in shown.err
    (tmp_path / "none").mkdir()
    for arguments, said in (
        (["short"], "short has 1 frame, but 8 are to be taken"),
        (["none"], "no clips in none: a clip is a folder of frames"),
        (["gone"], "gone does not exist"),
        ([], "this model classifies clips: give folders of frames"),
        (["clips", "--pair", "x"], "this model classifies clips, which have no --pair"),
    ):
        with pytest.raises(SystemExit):
            main(["classify", "run", *arguments])
        assert said in capsys.readouterr().err


def test_it_learns_from_what_no_frame_shows():
    """The second frame is as bright as the first, or as dark as that is bright: neither tells by itself."""

    def clips(count):
        signs = torch.randint(2, (count, 2)) * 2 - 1
        labels = (signs[:, 0] != signs[:, 1]).long()
        frames = signs[:, :, None, None, None] + 0.1 * torch.randn(count, 2, 3, 8, 8)
        return [
            {"pixel_values": frames[i : i + 32], "labels": labels[i : i + 32]}
            for i in range(0, count, 32)
        ]

    torch.manual_seed(0)
    config = family.TransformerConfig(dim=32, depth=1, heads=2, position="sinusoidal")
    model = family.VideoViT(2, config, 2, 2, 8, 8)
    task = tasks.VideoClassification(model, lr=3e-3, warmup_steps=0, schedule="constant")
    trainer = pl.Trainer(
        max_steps=60,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, *(DataLoader(clips(n), batch_size=None) for n in (32 * 60, 64)))
    assert trainer.callback_metrics["val/accuracy"] > 0.9
    assert task.pictures["predictions"].width > 300


def test_a_model_of_other_frames_is_refused():
    data = tasks.VideoClassificationData(examples=10, frames=3)
    config = family.TransformerConfig(dim=16, depth=1, heads=2)
    task = tasks.VideoClassification(partial(family.VideoViT, config=config))
    with pytest.raises(UserError, match="a clip of 3 frames .* does not divide into tubelets"):
        task.build_model(data.model_arguments)
