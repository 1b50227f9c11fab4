"""Class folders without pictures: refused, or left out as classes, whoever reads them."""

from __future__ import annotations

import shutil
import tarfile

import pytest
import torch
from PIL import Image

from tasks.data.image_classification import ImageClassificationData
from tasks.errors import UserError


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val"):
        for i, name in enumerate(("cat", "dog", "emu")):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (80 * i, 0, 0)).save(tmp_path / split / name / "0.png")
    return tmp_path


def data(root, **options):
    return ImageClassificationData(str(root), image_size=8, batch_size=3, augment="none", **options)


def test_empty_class_folder(root):
    (root / "train" / "fox").mkdir()
    with pytest.raises(UserError, match=r"class folder .*train/fox is empty"):
        data(root).setup("fit")


def test_empty_class_folder_in_a_tar(root):
    (root / "train" / "fox").mkdir()
    with tarfile.open(root / "train.tar", "w") as tar:
        tar.add(root / "train", "train")
    with pytest.raises(UserError, match=r"class folder train/fox in .*train.tar is empty"):
        data(root, layout="tar").setup("fit")


@pytest.mark.parametrize("layout", ["folder", "tar"])
def test_an_empty_class_folder_can_be_skipped(root, caplog, layout):
    (root / "train" / "fox").mkdir()
    with tarfile.open(root / "train.tar", "w") as tar:
        tar.add(root / "train", "train")
    found = data(root, layout=layout, on_bad="skip")
    assert found.classes == ["cat", "dog", "emu"] and "train/fox" in caplog.text
    for name in ("cat", "dog", "emu"):
        shutil.rmtree(root / "train" / name)
    with pytest.raises(UserError, match="none of the 1 class folders in"):
        data(root, layout="folder", on_bad="skip").setup("fit")


def test_a_class_without_a_picture_that_can_be_read_is_as_empty(root, caplog):
    (root / "train" / "cow").mkdir()
    (root / "train" / "cow" / "0.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"cow/0.png is not a picture"):
        data(root).setup("fit")
    found = data(root, on_bad="skip")
    found.setup("fit")
    assert found.classes == ["cat", "dog", "emu"] and "pictures: " in caplog.text
    assert found.split("train").labels.tolist() == [0, 1, 2]
    batch = next(iter(found.train_dataloader()))
    reds = found.preprocess.restore(batch["pixel_values"])[:, 0, 0, 0]
    assert (reds // 80).tolist() == batch["labels"].tolist()


def test_an_empty_class_of_imagenet(root, caplog):
    for split in ("train", "val"):
        for number, name in enumerate(("cat", "dog", "emu")):
            (root / split / name).rename(root / split / f"n{number}")
    (root / "train" / "n00").mkdir()
    names = {"n0": ("cat",), "n00": ("fox", "red fox"), "n1": ("dog",), "n2": ("emu",)}
    torch.save((names, []), root / "meta.bin")
    assert data(root).layout == "imagenet"
    with pytest.raises(UserError, match=r"class folder .*train/n00 is empty: .* data.on_bad=skip"):
        data(root).setup("fit")
    found = data(root, on_bad="skip")
    found.setup("fit")
    assert found.classes == ["cat", "dog", "emu"] and "train/n00" in caplog.text
    assert found.split("train").labels.tolist() == found.split("val").labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_of_two_members_of_one_name_the_later_counts(root, ending):
    with tarfile.open(root / f"train.{ending}", "w:gz" if ending == "tar.gz" else "w") as tar:
        tar.add(root / "train", "train")
        Image.new("RGB", (8, 8), (7, 7, 7)).save(root / "later.png")
        tar.add(root / "later.png", "./train/dog/0.png")
    found = data(root, layout="tar", val_fraction=0).split("train")
    assert found.names == ["cat/0.png", "dog/0.png", "emu/0.png"]
    assert found.read(1, (0, 0, 0)).getpixel((0, 0)) == (7, 7, 7)


def test_classes_that_differ_from_a_checkpoint_are_named(root):
    made = data(root)
    assets = made.assets()
    made.use_assets({**assets, "labels": ["emu", "dog", "cat"]})  # in any order
    assert made.split("train").labels.tolist() == [2, 1, 0]
    for labels, words in (
        (["emu", "dog", "cat", "yak"], "checkpoint: 'yak' of the checkpoint alone"),
        (["emu", "yak", "dog"], "'yak' of the checkpoint alone and 'cat' of .* alone"),
        (["emu", "dog"], "checkpoint: 'cat' of .* alone"),
    ):
        with pytest.raises(UserError, match=words):
            data(root).use_assets({**assets, "labels": labels})


def test_classes_a_folder_too_deep(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (8, 8)).save(tmp_path / "pets" / name / f"{i}.png")
    with pytest.raises(UserError, match="one folder, pets, with folders in it"):
        ImageClassificationData(str(tmp_path), (8, 8)).setup("fit")
