"""A validation split by any of its usual names, found by every data module."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from tasks.data import splits
from tasks.data.detection import DetectionData
from tasks.data.image_classification import ImageClassificationData
from tasks.data.image_text import ImageTextData
from tasks.data.language_modeling import LanguageModelingData
from tasks.data.segmentation import SegmentationData
from tasks.data.text_classification import TextClassificationData
from tasks.data.translation import TranslationData

NAMES = ["val", "valid", "validation", "dev"]


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def classes(root, name, count):
    for i in range(count):
        picture(root / name / "cat" / f"{i}.png")
    picture(root / name / "dog" / "0.png")
    return ImageClassificationData(str(root), image_size=8), count + 1


def tarred(root, name, count):
    classes(root / "kept", name, count)
    with tarfile.open(root / f"{name}.tar", "w") as tar:
        tar.add(root / "kept" / name, name)
    return ImageClassificationData(str(root), image_size=8), count + 1


def masks(root, name, count):
    for i in range(count):
        picture(root / name / "images" / f"{i}.png")
        picture(root / name / "masks" / f"{i}.png", i % 2)
    return SegmentationData(str(root), image_size=8), count


def annotations(root, name, count, file="annotations/instances_{}.json", folder=None):
    images = [{"id": i, "file_name": f"{name}{i}.png"} for i in range(count)]
    for image in images:
        picture(root / (folder or name) / image["file_name"])
    boxes = [{"image_id": 0, "category_id": 1, "bbox": [1, 1, 3, 3], "caption": "red"}]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
    text(root / file.format(name), json.dumps(content))
    return DetectionData(str(root), image_size=(16, 16)), count


def exported(root, name, count):
    return annotations(root, name, count, "{}/_annotations.coco.json")


def named_otherwise(root, name, count):
    """Annotations of val, whose pictures lie in a folder of another name."""
    file = "annotations/instances_{}.json"
    folder = "train" if name == "train" else "validation"
    return annotations(root, name, count, file, f"images/{folder}")


def objects(root, name, count):
    box = "<xmin>2</xmin><ymin>2</ymin><xmax>5</xmax><ymax>5</ymax>"
    for i in range(count):
        picture(root / "JPEGImages" / f"{name}{i}.png")
        thing = f"<object><name>a</name><bndbox>{box}</bndbox></object>"
        text(root / f"Annotations/{name}{i}.xml", f"<annotation>{thing}</annotation>")
    lines = "".join(f"{name}{i}\n" for i in range(count))
    text(root / f"ImageSets/Main/{name}.txt", lines)
    return DetectionData(str(root), image_size=(16, 16)), count


def captions(root, name, count):
    for i in range(count):
        picture(root / name / f"{i}.png")
    lines = "".join(f"{i}.png\tred\n" for i in range(count))
    text(root / f"{name}.tsv", f"file\tcaption\n{lines}")
    return ImageTextData(str(root), image_size=(8, 8), tokenizer="char"), count


def coco_captions(root, name, count):
    annotations(root, name, count, "annotations/captions_{}.json")
    return ImageTextData(str(root), image_size=(8, 8), tokenizer="char"), 1


def shards(root, name, count):
    with tarfile.open(root / f"{name}-00.tar", "w") as tar:
        for i in range(count):
            picture(root / "kept" / f"{i}.png")
            text(root / "kept" / f"{i}.txt", "red")
            for ending in ("png", "txt"):
                tar.add(root / "kept" / f"{i}.{ending}", f"{i}.{ending}")
    return ImageTextData(str(root), image_size=(8, 8), tokenizer="char"), count


def labelled(root, name, count):
    text(root / f"{name}.tsv", "fine\tgood\ndull\tbad\n" * count)
    return TextClassificationData(str(root), tokenizer="char"), 2 * count


def parallel(root, name, count):
    text(root / f"{name}.fr", "rouge\n" * count)
    text(root / f"{name}.en", "red\n" * count)
    return TranslationData(str(root), tokenizer="char"), count


def long_text(root, name, count):
    text(root / f"{name}.txt", "abcd" * 50 * count)
    return LanguageModelingData(str(root), context=8, cache=str(root / "cache")), 200 * count


def size(made, split):
    for ask in ("split", "pairs", "annotations", "rows", "tokens"):
        if hasattr(made, ask):
            found = getattr(made, ask)(split)
            return len(getattr(found, "names", found))
    raise AssertionError("no split is known of it")


WRITERS = [classes, tarred, masks, annotations, exported, objects, captions, coco_captions]
WRITERS += [shards, labelled, parallel, long_text]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("write", WRITERS)
def test_every_module_finds_each_name(tmp_path, write, name):
    _, train = write(tmp_path, "train", 5)
    made, val = write(tmp_path, name, 3)
    made.setup("fit")
    assert (size(made, "train"), size(made, "val")) == (train, val)
    next(iter(made.val_dataloader()))


def test_the_folder_of_pictures_may_have_another_name(tmp_path):
    named_otherwise(tmp_path, "train", 2)
    made, _ = named_otherwise(tmp_path, "val", 3)
    made.setup("fit")
    assert size(made, "val") == 3


@pytest.mark.parametrize("write", [annotations, objects, captions, labelled, parallel])
def test_a_name_that_is_given_is_the_only_one(tmp_path, write):
    write(tmp_path, "train", 5)
    made, _ = write(tmp_path, "valid", 3)
    other = type(made)(str(tmp_path), val="mine")
    with pytest.raises(Exception, match="mine"):
        other.setup("fit")


@pytest.mark.parametrize("write", WRITERS)
def test_of_two_the_first_counts(tmp_path, write):
    write(tmp_path, "train", 5)
    write(tmp_path, "valid", 3)
    made, val = write(tmp_path, "val", 2)
    assert size(made, "val") == val


def test_documents_called_as_a_split_are_no_splits(tmp_path):
    text(tmp_path / "manual.txt", "abcd" * 100)
    made, _ = long_text(tmp_path, "dev", 2)
    made.setup("fit")
    assert size(made, "train") > 600


def test_one_list_says_the_names():
    assert all(splits.usual(name) == "val" for name in NAMES)
    assert splits.called("val", {"dev", "validation"}.__contains__) == "validation"
    assert splits.called("mine", {"dev"}.__contains__) == "mine"
