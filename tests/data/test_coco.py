"""What files in COCO's format leave open: roots among categories, crowds as words, ids as strings."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from tasks.data.detection import DetectionData
from tasks.errors import UserError


def box(number, image, category, bbox, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, **more}


def split(images=(1, 2), boxes=(), categories=({"id": 7, "name": "dog"},)):
    """The content of an annotation file about pictures of 40 x 20 pixels."""
    listed = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 20} for i in images]
    return {"images": listed, "annotations": list(boxes), "categories": list(categories)}


def coco(root, train=None, val=None):
    for name, content in (("train", train), ("val", val)):
        content = content or split(boxes=[box(1, 1, 7, [10, 5, 20, 10])])
        (root / f"{name}.json").write_text(json.dumps(content))
        for image in content["images"]:
            Image.new("RGB", (40, 20)).save(root / image["file_name"])
    return root


def data(root):
    return DetectionData(str(root), image_size=(64, 64), augment=False, batch_size=2)


def named(*names, over=None):
    """Categories from 0; ``over``: of each the supercategory."""
    above = over or ["none"] * len(names)
    pairs = enumerate(zip(names, above, strict=True))
    return [{"id": i, "name": name, "supercategory": a} for i, (name, a) in pairs]


@pytest.mark.parametrize(
    ("categories", "classes"),
    [
        (named("raccoon", "raccoon", over=["none", "raccoon"]), {1: "raccoon"}),
        (named("raccoon", "raccoon", over=["raccoon", "raccoon"]), {1: "raccoon"}),
        (named("cells", "red", "white", over=["none", "cells", "cells"]), {1: "red", 2: "white"}),
        # One that is above itself alone, as COCO's person, is a class; so is one above nothing.
        (named("person", "dog", over=["person", "animal"]), {0: "person", 1: "dog"}),
    ],
)
def test_a_root_beside_its_children_is_no_class(tmp_path, categories, classes, caplog):
    content = split(boxes=[box(1, 1, 1, [1, 1, 5, 5])], categories=categories)
    made = data(coco(tmp_path, train=content, val=content))
    made.setup("fit")
    assert made.assets()["category_ids"] == list(classes)
    assert made.assets()["labels"] == list(classes.values())
    assert made.annotations("train").picture(0).labels.tolist() == [list(classes).index(1)]
    truth = made.ground_truth("val")
    assert [c["id"] for c in truth["categories"]] == list(classes)
    assert ("is the supercategory" in caplog.text) == (len(classes) < len(categories))


def test_a_root_with_boxes_is_a_class_in_every_split(tmp_path):
    categories = named("cells", "red", over=["none", "cells"])
    both = split(boxes=[box(1, 1, 0, [1, 1, 5, 5])], categories=categories)
    one = split(boxes=[box(1, 1, 1, [1, 1, 5, 5])], categories=categories)
    made = data(coco(tmp_path, train=both, val=one))
    made.setup("fit")
    assert made.model_arguments == {"num_classes": 2}
    old = data(coco(tmp_path, train=one, val=one))  # a checkpoint that took it for a class
    old.use_assets(made.assets())
    assert old.annotations("val").picture(0).labels.tolist() == [1]
    twice = named("red", "red")
    with pytest.raises(UserError, match="category name 'red' is given twice"):
        data(coco(tmp_path, train=split(boxes=[], categories=twice))).setup()


@pytest.mark.parametrize("crowd", [0, "0", False, None, "false", 0.0])
def test_no_crowd_however_it_is_written(tmp_path, crowd):
    boxes = [box(1, 1, 7, [1, 1, 5, 5], iscrowd=crowd)]
    made = data(coco(tmp_path, train=split(boxes=boxes)))
    assert made.annotations("train").picture(0).iscrowd.tolist() == [False]


@pytest.mark.parametrize("crowd", [1, "1", True, "true"])
def test_crowds_alone_are_refused_before_training(tmp_path, crowd):
    boxes = [box(1, 1, 7, [1, 1, 5, 5], iscrowd=crowd)]
    for train, val in ((split(boxes=boxes), None), (None, split(boxes=boxes))):
        made = data(coco(tmp_path, train=train, val=val))
        name = "train" if train else "val"
        with pytest.raises(UserError, match=f"data.{name}=.* has no box but 1 of crowds"):
            made.setup("fit")
    coco(tmp_path, train=split(boxes=[box(5, 1, 7, [1, 1, 5, 5], iscrowd="some")]))
    with pytest.raises(UserError, match="annotation 5: iscrowd is 'some': give 0 or 1"):
        data(tmp_path).setup("fit")


@pytest.mark.parametrize(
    ("ids", "numbers"), [(("7", "12"), [7, 12]), (("a", "b"), [1, 2]), (("1", "01"), [1, 2])]
)
def test_ids_of_pictures_may_be_strings(tmp_path, ids, numbers):
    boxes = [box(1, ids[1], 7, [1, 1, 5, 5])]
    if ids[1].isdecimal() and ids != ("1", "01"):
        boxes.append(box(2, int(ids[1]), 7, [2, 2, 5, 5]))  # and numbers beside them
    made = data(coco(tmp_path, train=split(images=ids, boxes=boxes)))
    found = made.annotations("train")
    assert [found.picture(i).image_id for i in range(2)] == numbers
    assert [len(found.picture(i).boxes) for i in range(2)] == [0, len(boxes)]
    assert {a["image_id"] for a in made.ground_truth("train")["annotations"]} == {numbers[1]}
