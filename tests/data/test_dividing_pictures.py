"""Boxes and masks without splits are divided, as pictures with classes are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tasks.data.detection import DetectionData
from tasks.data.segmentation import SegmentationData
from tasks.errors import UserError

SPLITS = ("train", "val", "test")


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)


def coco(root, file, count, folder="images", first=0):
    """Annotations of pictures whose names have the film that they are of: three pictures each."""
    images = [{"id": i, "file_name": f"film{i // 3}/{i}.png"} for i in range(first, first + count)]
    boxes = [{"image_id": one["id"], "category_id": 1, "bbox": [1, 1, 3, 3]} for one in images]
    for image in images:
        picture(root / folder / image["file_name"])
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))


def voc(root, count):
    box = "<xmin>2</xmin><ymin>2</ymin><xmax>5</xmax><ymax>5</ymax>"
    (root / "Annotations").mkdir(parents=True)
    for i in range(count):
        picture(root / "JPEGImages" / f"film{i // 3}-{i}.png")
        thing = f"<object><name>a{i % 2}</name><bndbox>{box}</bndbox></object>"
        file = root / "Annotations" / f"film{i // 3}-{i}.xml"
        file.write_text(f"<annotation>{thing}</annotation>")


def masks(root, count, value=lambda i: i % 2):
    for i in range(count):
        picture(root / "images" / f"film{i // 3}" / f"{i}.jpg")
        picture(root / "masks" / f"film{i // 3}" / f"{i}.png", value(i))


def boxes(root, **options):
    return DetectionData(str(root), image_size=(16, 16), **options)


def names(made, split):
    if isinstance(made, DetectionData):
        return [str(one.path) for one in made.annotations(split).pictures]
    return [str(pair.image) for pair in made.pairs(split)]


def film(name):
    return name.split("film")[1].split("/")[0].split("-")[0]


def one_file(root):
    coco(root, "annotations/all.json", 60)
    return root


def named_file(root):
    coco(root, "annotations/a.json", 60)
    (root / "annotations/other.json").write_text("{}")
    return root / "annotations/a.json"


def exported(root):
    coco(root, "_annotations.coco.json", 60, ".")
    return root


def no_sets(root):
    voc(root, 60)
    return root


def no_splits(root):
    masks(root, 60)
    return root


WRITERS = [one_file, named_file, exported, no_sets, no_splits]


def kind(write):
    return SegmentationData if write is no_splits else boxes


@pytest.mark.parametrize("write", WRITERS)
def test_what_has_no_splits_is_divided(tmp_path, write):
    root, make = str(write(tmp_path)), kind(write)
    plain = make(root)
    plain.setup("fit")
    found = {split: names(plain, split) for split in SPLITS[:2]}
    assert sum(map(len, found.values())) == 60 and 1 <= len(found["val"]) <= 14
    assert not {*found["train"]} & {*found["val"]}
    next(iter(plain.val_dataloader()))
    with pytest.raises(UserError, match="test"):
        names(plain, "test")

    # A seed gives exact shares, and another seed others.
    chosen = {"val_fraction": 0.2, "test_fraction": 0.3}
    parts = [make(root, **chosen, split_seed=seed) for seed in (0, 0, 1)]
    drawn = [[names(one, split) for split in SPLITS] for one in parts]
    assert [len(part) for part in drawn[0]] == [30, 12, 18]
    assert len({name for part in drawn[0] for name in part}) == 60
    assert drawn[0] == drawn[1] and drawn[0] != drawn[2]

    # By a hash, as with a seed, groups stay together.
    for seed in (None, 3):
        grouped = make(root, **chosen, split_seed=seed, group=r"film\d+")
        films = [{film(name) for name in names(grouped, split)} for split in SPLITS]
        assert all(films) and sum(map(len, films)) == 20


def test_a_hash_leaves_pictures_where_they_are_when_others_come(tmp_path):
    masks(tmp_path, 60)
    before = {*names(SegmentationData(str(tmp_path)), "val")}
    masks(tmp_path, 90)
    assert before <= {*names(SegmentationData(str(tmp_path)), "val")}


@pytest.mark.parametrize("write", WRITERS)
def test_all_pictures_have_one_list_of_classes(tmp_path, write):
    made = kind(write)(str(write(tmp_path)), test_fraction=0.2)
    labels = made.assets()["labels"]
    assert labels == {no_sets: ["a0", "a1"], no_splits: ["0", "1"]}.get(write, ["a"])
    again = kind(write)(str(tmp_path if write is not named_file else named_file(tmp_path)))
    again.use_assets(made.assets())
    again.setup("validate")
    assert names(again, "val") == names(made, "val")


def test_a_class_that_is_held_out_alone_is_a_class(tmp_path):
    masks(tmp_path, 30)
    held = names(SegmentationData(str(tmp_path)), "val")[0]
    mask = held.replace("/images/", "/masks/").replace(".jpg", ".png")
    Image.fromarray(np.full((8, 8), 2, np.uint8)).save(mask)
    made = SegmentationData(str(tmp_path))
    made.setup("fit")
    assert made.classes == ["0", "1", "2"]
    assert made.class_counts()[2] == 0 and sum(made.class_counts()) == 64 * len(made.pairs("train"))


def test_validation_is_held_out_of_training_where_only_that_is_missing(tmp_path):
    coco(tmp_path / "coco", "train.json", 60)
    coco(tmp_path / "coco", "test.json", 9, first=60)
    voc(tmp_path / "voc", 60)
    (tmp_path / "voc/ImageSets/Main").mkdir(parents=True)
    files = sorted(path.stem for path in (tmp_path / "voc/Annotations").iterdir())
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text("\n".join(files[9:]))
    (tmp_path / "voc/ImageSets/Main/test.txt").write_text("\n".join(files[:9]))
    for i in range(60):
        picture(tmp_path / "masks" / "train/images" / f"{i}.png")
        picture(tmp_path / "masks" / "train/masks" / f"{i}.png", i % 2)
    for i in range(9):
        picture(tmp_path / "masks" / "test/images" / f"{i}.png")
        picture(tmp_path / "masks" / "test/masks" / f"{i}.png", i % 2)
    for root, make, count in (
        ("coco", boxes, 60),
        ("voc", boxes, 51),
        ("masks", SegmentationData, 60),
    ):
        made = make(str(tmp_path / root))
        made.setup("fit")
        sizes = [len(names(made, split)) for split in SPLITS]
        assert sizes[0] + sizes[1] == count and sizes[1] > 0 and sizes[2] == 9, root
        # No share: validation is on test, as of pictures with classes.
        none = make(str(tmp_path / root), val_fraction=0)
        assert len(names(none, "train")) == count
        assert names(none, "val") == names(none, "test")


def test_what_cannot_be_meant_is_refused(tmp_path):
    coco(tmp_path, "one.json", 6)
    coco(tmp_path, "two.json", 6)
    with pytest.raises(UserError, match=r"There are one.json, two.json: data.root may name one"):
        boxes(tmp_path).setup("fit")
    with pytest.raises(UserError, match="data.val_fraction=1.5 must be at least 0 and below 1"):
        boxes(tmp_path, val_fraction=1.5)
    with pytest.raises(UserError, match=r"data.group='\(' is no regular expression"):
        SegmentationData(str(tmp_path), group="(")
    with pytest.raises(UserError, match="leaves none for val"):
        boxes(tmp_path / "one.json", val_fraction=0.01, split_seed=0).setup("fit")
    with pytest.raises(UserError, match="data.val='mine'"):
        boxes(tmp_path / "one.json", val="mine").setup("fit")
    with pytest.raises(UserError, match="is not a folder"):
        boxes(tmp_path / "absent.json").setup("fit")
