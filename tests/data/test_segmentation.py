"""Pictures and masks: layouts, labels, augmentation of both together, mistakes by name."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.data import shapes
from tasks.data.augment import GREY
from tasks.data.segmentation import IGNORE_MASK, SegmentationData
from tasks.errors import UserError

COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250]], np.uint8)


def blocks(seed, height=24, width=32):
    """A mask of large blocks of the values 0, 1, 2."""
    coarse = np.random.default_rng(seed).integers(0, 3, (height // 8, width // 8), np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


def write(images, masks, count=4, void=False):
    """Pictures whose colours are those of their classes, and the masks."""
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for i in range(count):
        mask = blocks(i)
        Image.fromarray(COLOURS[mask]).save(images / f"{i}.png")
        if void:
            mask[:4] = 11
        Image.fromarray(mask).save(masks / f"{i}.png")


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / split / "images", tmp_path / split / "masks")
    return tmp_path


def data(root, **options):
    options = {"image_size": (24, 32), "batch_size": 4, "colour": 0.0, **options}
    return SegmentationData(None if root is None else str(root), **options)


def agreement(found, batch):
    """Share of the pixels that count whose colour is that of their label."""
    pictures = found.preprocess.restore(batch["pixel_values"]).permute(0, 2, 3, 1).int()
    labels = batch["labels"]
    counts = labels != IGNORE_MASK
    nearest = (pictures[..., None, :] - torch.tensor(COLOURS).int()).abs().sum(-1).argmin(-1)
    return (nearest == labels)[counts].float().mean().item()


def test_evaluation_sees_the_whole_picture(root):
    found = data(root)
    found.setup("fit")
    assert found.model_arguments == {"num_classes": 3, "image_size": (24, 32)}
    assert found.assets()["labels"] == ["0", "1", "2"]
    batch = next(iter(found.val_dataloader()))
    assert {labels.dtype for labels in batch["labels"]} == {torch.int64}
    truth = np.stack([blocks(i) for i in range(4)])
    assert (torch.stack(batch["labels"]).numpy() == truth).all()
    assert agreement(found, {**batch, "labels": torch.stack(batch["labels"])}) == 1
    # A smaller input is still judged by the whole mask.
    half = data(root, image_size=(12, 16))
    batch = next(iter(half.val_dataloader()))
    assert batch["pixel_values"].shape[-2:] == (12, 16)
    assert (torch.stack(batch["labels"]).numpy() == truth).all()


@pytest.mark.parametrize("size", [(24, 32), (40, 24)])
def test_augmentation_moves_both_together(root, size):
    found = data(root, image_size=size, classes=["a", "b", "c"])
    batch = next(iter(found.train_dataloader()))
    assert batch["pixel_values"].shape == (4, 3, *size)
    assert batch["labels"].shape == (4, *size)
    assert len(batch["labels"].unique()) == 4
    assert agreement(found, batch) > 0.9
    pictures = found.preprocess.restore(batch["pixel_values"]).permute(0, 2, 3, 1)
    outside = (pictures == torch.tensor(GREY)).all(-1)
    assert outside.any()
    assert (batch["labels"][outside] == IGNORE_MASK).all()


def test_scale_is_relative_to_the_whole_picture(root):
    """At scale 1 the whole picture fits: no pixel outside, for a size that is not square."""
    found = data(root, image_size=(48, 64), scale=(1.0, 1.0))
    batch = next(iter(found.train_dataloader()))
    assert (batch["labels"] != IGNORE_MASK).all()
    expected = {tuple(blocks(i).repeat(2, 0).repeat(2, 1).ravel()) for i in range(4)}
    mirrored = {tuple(blocks(i)[:, ::-1].repeat(2, 0).repeat(2, 1).ravel()) for i in range(4)}
    for labels in batch["labels"].numpy():
        assert tuple(labels.ravel()) in expected | mirrored


def test_augmentation_repeats(root):
    def batches(workers):
        found = data(root, batch_size=2, num_workers=workers, colour=0.3)
        return torch.cat([batch["pixel_values"] for batch in found.train_dataloader()])

    assert torch.equal(batches(0), batches(1))


@pytest.mark.parametrize("masks", ["masks", "annotations"])
def test_other_layout(tmp_path, masks):
    for split, name in (("train", "training"), ("val", "validation")):
        write(tmp_path / "images" / name, tmp_path / masks / name, 5 if split == "train" else 3)
    found = data(tmp_path)
    found.setup("fit")
    assert len(found.pairs("train")) == 5
    assert len(found.pairs("val")) == 3


def test_void_does_not_count(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / split / "images", tmp_path / split / "masks", void=True)
    found = data(tmp_path, ignore=11)
    # Without names the largest value that counts decides.
    assert found.classes == ["0", "1", "2"]
    labels = torch.stack(next(iter(found.val_dataloader()))["labels"])
    assert (labels[:, :4] == IGNORE_MASK).all()
    assert (labels[:, 4:] != IGNORE_MASK).all()
    # Without void there are more: values 3 to 10 exist, unused.
    assert len(data(tmp_path).classes) == 12


def test_an_ignored_zero_shifts_the_classes(root):
    found = data(root, ignore=0)
    assert found.classes == ["1", "2"]
    labels = next(iter(found.val_dataloader()))["labels"][0].numpy()
    values = blocks(0)
    assert (labels[values == 0] == IGNORE_MASK).all()
    assert (labels[values == 2] == 1).all()


def write_black_and_white(root):
    for split in ("train", "val"):
        for path in (root / split / "masks").iterdir():
            mask = np.asarray(Image.open(path))
            Image.fromarray(np.where(mask == 2, 255, 0).astype(np.uint8)).save(path)


def test_masks_of_black_and_white(root):
    write_black_and_white(root)
    # Both refusals name what leads on, and what they say works.
    for options in ({}, {"classes": ["a", "b"]}):
        with pytest.raises(UserError, match="255") as refusal:
            data(root, **options).setup("fit")
        assert "data.values='{0: 0, 255: 1}'" in str(refusal.value)
    found = data(root, values={0: 0, 255: 1})
    found.setup("fit")
    assert found.classes == ["0", "255"] and found.masks.ids == [0, 255]
    labels = next(iter(found.val_dataloader()))["labels"][0].numpy()
    assert np.array_equal(labels, blocks(0) == 2)
    assert data(root, values={0: 0, 255: 1}, classes=["no", "yes"]).classes == ["no", "yes"]


def test_a_map_of_values(root):
    found = data(root, values={0: 1, 2: 1, 1: 0})  # several of one class
    assert found.classes == ["1", "0+2"] and found.masks.ids == [1, 0]
    labels = next(iter(found.val_dataloader()))["labels"][0].numpy()
    assert np.array_equal(labels, blocks(0) != 1)
    found = data(root, values={1: 0, 2: 1}, ignore=0)
    labels = next(iter(found.val_dataloader()))["labels"][0].numpy()
    assert np.array_equal(labels, np.array([255, 0, 1])[blocks(0)])
    for options, words in (
        ({"values": {0: 0, 1: 2}}, "has the classes 0, 2: they are numbered from 0"),
        ({"values": {}}, "has the classes of nothing"),
        ({"values": {-1: 0}}, "data.values has -1: values of masks are 0 to"),
        ({"values": {0: 0, 2: 1}, "ignore": 2}, "data.values and data.ignore both have 2"),
        ({"values": {0: 0, 1: 1}}, "has the value 2, but data.values has only 0, 1"),
        ({"values": {0: 0, 1: 1, 2: 1}, "classes": ["a"]}, "has 2 classes, but 1 are named: a"),
    ):
        with pytest.raises(UserError, match=words):
            data(root, **options).setup("fit")


def test_far_apart_values_are_warned_of(root, caplog):
    for split in ("train", "val"):
        for path in (root / split / "masks").iterdir():
            Image.fromarray(np.asarray(Image.open(path)) * 60).save(path)
    assert len(data(root).classes) == 121
    assert "the masks hold 3 values up to 120" in caplog.text


def test_a_split_that_is_all_ignored_is_refused_before_training(root):
    for path in (root / "val" / "masks").iterdir():
        Image.fromarray(np.full((24, 32), 7, np.uint8)).save(path)
    with pytest.raises(UserError, match=r"every pixel of the val split .* data.ignore=\[7\]"):
        data(root, ignore=7).setup("fit")


def test_names(root):
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    assert data(root).classes == ["sky", "road", "car"]
    assert data(root, classes=["x", "y", "z", "w"]).model_arguments["num_classes"] == 4
    found = data(root)
    with pytest.raises(UserError, match="class 0 of the checkpoint is 'sea', but 'sky'"):
        found.use_assets({**found.assets(), "labels": ["sea", "road", "car"]})


def test_shapes():
    found = data(None, image_size=24, examples=20)
    found.setup("fit")
    assert found.classes == ["background", *shapes.CLASSES]
    batch = next(iter(found.val_dataloader()))
    for i in range(4):
        scene = shapes.sample(i, 0, "val")
        assert (batch["labels"][i].numpy() == shapes.segmentation(scene, 24)).all()
    assert next(iter(found.train_dataloader()))["labels"].max() <= IGNORE_MASK


# --- Mistakes --------------------------------------------------------------------------------


def test_unequal_numbers(root):
    (root / "train" / "masks" / "2.png").unlink()
    with pytest.raises(UserError, match=r"4 pictures and .*3 masks: 2.png has no mask"):
        data(root).setup("fit")


def test_a_missing_partner(root):
    folder = root / "train" / "images"
    (folder / "2.png").rename(folder / "two.png")
    with pytest.raises(UserError, match=r"4 pictures and .* 4 masks: two.png has no mask in"):
        data(root).setup("fit")
    (folder / "two.png").unlink()
    with pytest.raises(UserError, match=r"3 pictures and .* 4 masks: 2.png has no picture in"):
        data(root).setup("fit")


def test_two_pictures_of_one_name(root):
    shutil.copy(root / "train" / "images" / "2.png", root / "train" / "images" / "2.jpg")
    with pytest.raises(UserError, match=r"2.png and .*2.jpg have one name"):
        data(root).setup("fit")


def test_unequal_sizes(root):
    Image.new("L", (30, 24)).save(root / "val" / "masks" / "1.png")
    with pytest.raises(
        UserError, match=r"masks/1.png is 30 x 24, but its picture 1.png is 32 x 24"
    ):
        data(root).setup("fit")


@pytest.mark.parametrize("value", [3, 200, 255])
def test_a_value_beyond_the_classes(root, value):
    mask = blocks(1)
    mask[3, 3] = value
    Image.fromarray(mask).save(root / "val" / "masks" / "1.png")
    words = (
        rf"masks/1.png has the value {value}, but there are 3 classes \(0 to 2\).*ignore={value}"
    )
    for options in ({}, {"classes": ["a", "b", "c"]}):
        with pytest.raises(UserError, match=words):
            data(root, **options).setup("fit")
    data(root, ignore=value).setup("fit")


def test_255_is_no_class(root):
    mask = blocks(1)
    mask[3, 3] = 255
    Image.fromarray(mask).save(root / "train" / "masks" / "1.png")
    with pytest.raises(UserError, match="value 255, but not 254: give data.ignore=255"):
        data(root).setup("fit")


def test_coloured_mask(root):
    Image.new("RGB", (32, 24)).save(root / "train" / "masks" / "1.png")
    with pytest.raises(UserError, match="masks/1.png has 3 channels"):
        data(root).setup("fit")


def test_unreadable_picture(root):
    (root / "train" / "images" / "1.png").write_text("no picture")
    with pytest.raises(UserError, match="images/1.png is not a picture"):
        data(root).setup("fit")
    found = data(root, on_bad="skip")
    found.setup("fit")
    assert len(found.pairs("train")) == 3


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no train split: it needs train/images and train/masks"):
        data(tmp_path).setup("fit")
    with pytest.raises(UserError, match="nowhere does not exist"):
        data(tmp_path / "nowhere").setup("fit")
    (tmp_path / "train" / "images").mkdir(parents=True)
    (tmp_path / "train" / "masks").mkdir()
    with pytest.raises(UserError, match="train/images has no pictures"):
        data(tmp_path).setup("fit")
    with pytest.raises(UserError, match="ignore=-1 must be"):
        data(tmp_path, ignore=-1)


@pytest.mark.parametrize("split", ["train", "val"])
def test_objects_of_the_built_in_world_are_segments(split):
    given = data(None, image_size=48, examples=8, instances=True)
    plain = data(None, image_size=48, examples=8)
    batch, same = next(iter(given.loader(split))), next(iter(plain.loader(split)))
    assert torch.equal(batch["pixel_values"], same["pixel_values"])
    numbers = {len(segments["labels"]) for segments in batch["segments"]}
    assert len(numbers) > 1 and max(numbers) > 2
    for labels, wanted, segments in zip(
        batch["labels"], same["labels"], batch["segments"], strict=True
    ):
        assert torch.equal(labels, wanted)
        assert torch.equal(segments["counted"], labels != IGNORE_MASK)
        assert torch.equal(segments["masks"].sum(0), segments["counted"].long())  # each pixel once
        for label, mask in zip(segments["labels"], segments["masks"], strict=True):
            assert mask.any() and (labels[mask] == label).all()
    if split == "val":
        scene = shapes.sample(0, split="val")
        assert batch["segments"][0]["labels"].tolist() == shapes.kinds(scene)
    assert given.class_counts() == plain.class_counts()
    assert given.assets()["things"] == [*range(1, 9)] and "things" not in plain.assets()


def test_masks_of_classes_have_no_objects(root):
    with pytest.raises(UserError, match="data.instances=true is for the built-in shapes"):
        data(root, instances=True)
