"""Clips and their classes: where they are found, how they are divided, and what is refused."""

from __future__ import annotations

import logging

import pytest
import torch
from PIL import Image

from tasks.data.shapes_video import CLASSES
from tasks.data.video_classification import VideoClassificationData
from tasks.errors import UserError


def write(root, clips, frames=4, size=(8, 10)):
    """``CLASS/CLIP`` -> a folder of frames, whose grey is ten times their number."""
    for clip in clips:
        (root / clip).mkdir(parents=True, exist_ok=True)
        for i in range(frames):
            Image.new("RGB", size, (10 * i,) * 3).save(root / clip / f"{i}.png")


def data(root, **options):
    half = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return VideoClassificationData(
        str(root), **{"frames": 2, "image_size": 8, "batch_size": 4, **half, **options}
    )


@pytest.mark.parametrize("cache", [True, False])
def test_frames_in_their_order_and_the_classes_of_their_folders(tmp_path, cache):
    write(tmp_path / "training", ["up/a", "down/deep/b"])
    write(tmp_path / "val", ["up/c"], frames=8)
    made = data(tmp_path, cache=cache)
    made.setup()
    assert made.classes == ["down", "up"]
    assert made.model_arguments == {"num_classes": 2, "image_size": (8, 8), "frames": 2}
    (batch,) = made.val_dataloader()
    assert batch["pixel_values"].shape == (1, 2, 3, 8, 8) and batch["labels"].tolist() == [1]
    assert batch["file"] == ["up/c"]
    greys = (batch["pixel_values"][0, :, 0, 0, 0] * 255).round().tolist()
    assert greys == [20, 60]  # the middles of two halves of eight
    (batch,) = made.train_dataloader()
    assert sorted(zip(batch["file"], batch["labels"].tolist(), strict=True)) == [
        ("down/deep/b", 0),
        ("up/a", 1),
    ]
    with pytest.raises(UserError, match="no test split"):
        made.split("test")


def test_a_root_without_splits_is_divided_by_a_hash(tmp_path):
    write(tmp_path, [f"{c}/{i}" for c in "ab" for i in range(20)], frames=2, size=(2, 2))
    held = {"val_fraction": 0.3, "test_fraction": 0.2}
    parts = [set(data(tmp_path, **held).split(s).names) for s in ("train", "val", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 40 and all(parts)


def test_unequal_lengths_are_said(tmp_path, caplog):
    write(tmp_path / "train", ["up/a", "down/b"])
    write(tmp_path / "val", ["up/c"])
    with caplog.at_level(logging.INFO):
        data(tmp_path).setup()
        assert "clips of" not in caplog.text
        write(tmp_path / "train", ["up/longer"], frames=9)
        data(tmp_path).setup()
    assert "clips of 4 to 9 frames: of each 2 are taken, evenly over its length" in caplog.text


def test_one_sentence_before_training(tmp_path):
    def refused(said, **options):
        with pytest.raises(UserError, match=said) as caught:
            data(tmp_path, **options).setup()
        assert "\n" not in str(caught.value)

    refused("has no folders of clips")
    write(tmp_path / "train", ["up/a", "down/b"])
    write(tmp_path / "val", ["up/c"])
    refused(r"down/b has 4 frames, but 5 are to be taken.* \(2 clips are so\)", frames=5)
    write(tmp_path / "train", ["up/wide"], size=(8, 10))
    Image.new("RGB", (9, 10)).save(tmp_path / "train/up/wide/2.png")
    refused("up/wide has frames of unequal sizes: 0.png is 10 x 8 .*2.png 10 x 9", frames=4)
    left = data(tmp_path, frames=4, on_bad="skip")
    assert left.split("train").names == ["down/b", "up/a"]
    (tmp_path / "train/up/wide/2.png").write_text("no picture")
    refused("2.png is not a picture that can be read", frames=4)
    (tmp_path / "train/left").mkdir()
    refused("the class folder .*left is empty: it has no clips", frames=4)
    Image.new("RGB", (9, 10)).save(tmp_path / "train/left/0.png")
    refused("0.png lies right in the folder of a class", frames=4)
    for options, said in (
        ({"frames": 0}, "data.frames must be at least 1, not 0"),
        ({"root": "gone"}, "data.root gone does not exist"),
    ):
        with pytest.raises(UserError, match=said):
            VideoClassificationData(**options).setup()


def test_the_number_of_frames_goes_with_a_checkpoint(tmp_path):
    write(tmp_path / "train", ["up/a", "down/b"])
    write(tmp_path / "val", ["up/c"])
    first, second = data(tmp_path, frames=4), data(tmp_path)
    second.setup()
    second.use_assets(first.assets())
    assert next(iter(second.val_dataloader()))["pixel_values"].shape == (1, 4, 3, 8, 8)
    assert second.model_arguments == first.model_arguments


def test_the_moving_world():
    made = VideoClassificationData(examples=10, image_size=(16, 24), frames=4, batch_size=10)
    assert made.classes == [*CLASSES]
    (batch,) = made.train_dataloader()
    pixels = batch["pixel_values"]
    assert pixels.shape == (10, 4, 3, 16, 24)
    moved = (pixels[:, 1:] != pixels[:, :-1]).flatten(1).any(1)
    assert moved.all() and len(made.split("val").names) == 100
    assert not torch.equal(pixels[0], pixels[1])
