"""Readers of boxes, batches for detection, and one clear sentence for each mistake in them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from tasks.data import detection
from tasks.data.batching import LoaderProgress
from tasks.data.detection import Augment, DetectionData
from tasks.data.sampling import Pick
from tasks.errors import UserError

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def picture(path, size=(40, 20), colour=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, "JPEG" if path.suffix == ".jpg" else "PNG")


def box(number, image, category, bbox, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, **more}


def split(images=(1, 2), boxes=None, categories=CATEGORIES):
    """The content of an annotation file about pictures of 40 x 20 pixels."""
    if boxes is None:
        boxes = [box(1, 1, 7, [10, 5, 20, 10]), box(2, 1, 3, [0, 0, 8, 4])]
    listed = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 20} for i in images]
    return {"images": listed, "annotations": boxes, "categories": categories}


def coco(root, train=None, val=None, file="annotations/instances_{}.json", folder="images"):
    for name, content in (("train", train or split()), ("val", val or split())):
        path = root / file.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        for image in content["images"]:
            picture(root / folder.format(name) / image["file_name"])
    return root


def data(root, **options):
    options = {"image_size": (64, 64), "augment": False, "batch_size": 2} | options
    return DetectionData(str(root), **options)


LAYOUTS = [
    ("annotations/instances_{}.json", "images"),
    ("annotations/instances_{}2017.json", "{}2017"),
    ("annotations/{}.json", "images/{}"),
    ("{}.json", "."),
    ("{}/_annotations.coco.json", "{}"),
]


@pytest.mark.parametrize(("file", "folder"), LAYOUTS)
def test_finds_each_layout(tmp_path, file, folder):
    found = data(coco(tmp_path, file=file, folder=folder))
    found.setup("fit")
    assert len(found.annotations("train")) == 2
    assert found.annotations("val").image(0).size == (40, 20)


def test_a_file_and_a_folder_can_be_named(tmp_path):
    coco(tmp_path, file="labels-{}.json", folder="elsewhere")
    with pytest.raises(UserError, match="data.images names their folder"):
        data(tmp_path, train="labels-train.json").setup()
    named = data(tmp_path, train="labels-train.json", val="labels-val.json", images="elsewhere")
    named.setup("fit")
    with pytest.raises(UserError, match="data.images='no'"):
        data(tmp_path, train="labels-train.json", images="no").setup()


def test_ids_with_gaps_become_labels_in_their_order(tmp_path):
    made = data(coco(tmp_path))
    assert made.model_arguments == {"num_classes": 2}
    assert made.assets()["labels"] == ["cat", "dog"]
    assert made.assets()["category_ids"] == [3, 7]
    assert made.annotations("train").picture(0).labels.tolist() == [1, 0]
    truth = made.ground_truth("train")
    assert [a["category_id"] for a in truth["annotations"]] == [7, 3]


def test_batch(tmp_path):
    content = split()
    coco(tmp_path, val=content)
    picture(tmp_path / "images" / "2.png", (20, 40))
    content["images"][1] |= {"width": 20, "height": 40}
    for name in ("train", "val"):
        (tmp_path / f"annotations/instances_{name}.json").write_text(json.dumps(content))
    made = data(tmp_path)
    batch = next(iter(made.val_dataloader()))
    assert batch["pixel_values"].shape == (2, 3, 64, 64)
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[0, :32], mask[1, :, :32] = True, True
    assert torch.equal(batch["pixel_mask"], mask)
    outside = batch["pixel_values"].permute(0, 2, 3, 1)[~mask]
    assert not outside.any()
    first, second = batch["targets"]
    assert first["labels"].tolist() == [1, 0]
    # cx, cy, w, h of the picture without padding.
    torch.testing.assert_close(
        first["boxes"], torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.2, 0.2]])
    )
    assert (first["image_id"], first["size"]) == (1, (20, 40))
    # A picture without boxes is kept.
    assert second["boxes"].shape == (0, 4) and second["labels"].shape == (0,)
    assert (second["image_id"], second["size"]) == (2, (40, 20))


def test_crowds_are_for_evaluation_alone(tmp_path):
    boxes = [box(1, 1, 7, [1, 1, 5, 5], area=9.0), box(2, 1, 7, [8, 2, 20, 10], iscrowd=1)]
    made = data(coco(tmp_path, train=split(boxes=boxes)))
    batch = next(iter(made.train_dataloader()))
    target = next(t for t in batch["targets"] if t["image_id"] == 1)
    assert len(target["boxes"]) == 1
    truth = made.ground_truth("train")
    assert [a["iscrowd"] for a in truth["annotations"]] == [0, 1]
    assert [a["area"] for a in truth["annotations"]] == [9.0, 200.0]
    assert [a["id"] for a in truth["annotations"]] == [1, 2]
    assert truth["images"][0] == {"id": 1, "file_name": "1.png", "height": 20, "width": 40}


def test_boxes_out_of_the_picture(tmp_path, caplog):
    boxes = [
        box(1, 1, 7, [-4, 10, 10, 20]),
        box(2, 1, 7, [40, 0, 5, 5]),
        box(3, 2, 3, [3, 3, 0, 5]),
        box(4, 2, 3, [3, 3, 5, 5]),
    ]
    made = data(coco(tmp_path, train=split(boxes=boxes))).annotations("train")
    assert made.picture(0).boxes.tolist() == [[0, 10, 6, 20]]
    assert made.picture(1).boxes.tolist() == [[3, 3, 8, 8]]
    assert "1 of 4 boxes reach out of their pictures" in caplog.text
    assert "2 of 4 boxes have no area" in caplog.text
    assert "the first:" in caplog.text and "annotation 2." in caplog.text


def test_corners_in_place_of_sides_are_suspected(tmp_path, caplog):
    boxes = [box(i, 1, 7, [20 + i, 10, 38, 19]) for i in range(3)]
    data(coco(tmp_path, train=split(boxes=boxes))).annotations("train")
    assert "Are they corners?" in caplog.text


TWICE = [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]
SAME = [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (split(categories=TWICE, boxes=[]), "category id 1 is given twice"),
        (split(categories=SAME, boxes=[]), "category name 'cat' is given twice"),
        (split(images=(1, 1)), "image id 1 is given twice"),
        (split(boxes=[box(5, 9, 7, [1, 1, 2, 2])]), "annotation 5 is of image_id=9"),
        (split(boxes=[box(5, 1, 8, [1, 1, 2, 2])]), "annotation 5 is of category_id=8"),
        (split(boxes=[box(5, 1, 7, [1, 1, math.nan, 2])]), "annotation 5 .* no finite number"),
        (split(boxes=[box(5, 1, 7, [9, 9, -2, 4])]), "annotation 5 has a negative size: -2 x 4"),
        (split(boxes=[box(5, 1, 7, [1, 2, 3])]), "annotation 5 .* needs x, y, width, height"),
        (split(boxes=[{"image_id": 1, "category_id": 7}]), r"annotations\[0\] has no 'bbox'"),
        (split(boxes=[box(5, [1], 7, [1, 2, 3, 4])]), r"image_id=\[1\]: ids are integers or str"),
        (split(boxes=[box(5, 1, "7", [1, 2, 3, 4])]), "category_id='7': ids are integers"),
        (split(images=(1, "1")), "image id 1 is given twice"),
        ({"images": [], "annotations": []}, "no list 'categories'"),
        (split(images=(), boxes=[]), "data.images names|is empty"),
    ],
)
def test_bad_annotations_are_named_in_one_sentence(tmp_path, content, words):
    coco(tmp_path)
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=words):
        data(tmp_path).setup("fit")


def test_bad_files(tmp_path):
    with pytest.raises(UserError, match="no annotations of data.train='train'"):
        data(tmp_path).setup()
    with pytest.raises(UserError, match="is not a folder"):
        data(tmp_path / "no").setup()
    (tmp_path / "train.json").write_text('{"images": [}')
    with pytest.raises(UserError, match="train.json is not JSON: line 1"):
        data(tmp_path).setup()
    with pytest.raises(UserError, match="trian.json does not exist. Did you mean 'train.json'"):
        data(tmp_path, train="trian.json").setup()
    coco(tmp_path)
    (tmp_path / "annotations/train1.json").write_text("{}")
    (tmp_path / "annotations/train2.json").write_text("{}")
    (tmp_path / "annotations/instances_train.json").unlink()
    (tmp_path / "train.json").unlink()
    with pytest.raises(UserError, match="several files for 'train': train1.json, train2.json"):
        data(tmp_path).setup()


def test_missing_and_damaged_pictures(tmp_path, caplog):
    coco(tmp_path, train=split(images=(1, 2, 3, 4)))
    (tmp_path / "images/3.png").unlink()
    (tmp_path / "images/4.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="3.png does not exist .*2 pictures.*on_bad=skip"):
        data(tmp_path).setup("fit")
    made = data(tmp_path, on_bad="skip")
    assert len(made.annotations("train")) == 2
    assert "2 of 4 pictures are left out" in caplog.text


def test_evaluation_takes_no_other_picture_in_place_of_a_damaged_one(tmp_path):
    content = split()
    content["images"][1]["file_name"] = "2.jpg"
    coco(tmp_path, val=content)
    # A header that can be read, and then nothing.
    file = tmp_path / "images/2.jpg"
    Image.effect_noise((40, 20), 90).convert("RGB").save(file)
    file.write_bytes(file.read_bytes()[:-200])
    data(tmp_path).setup("fit")
    with pytest.raises(UserError, match="2.jpg is cut short"):
        list(data(tmp_path).val_dataloader())
    made = data(tmp_path, on_bad="skip")
    assert [image["id"] for image in made.ground_truth("val")["images"]] == [1]
    seen = [t["image_id"] for batch in made.val_dataloader() for t in batch["targets"]]
    assert seen == [1]


def test_a_picture_of_another_size_than_annotated(tmp_path):
    coco(tmp_path)
    picture(tmp_path / "images/2.png", (20, 40))
    with pytest.raises(UserError, match="2.png has 20 x 40 pixels .* say 40 x 20"):
        data(tmp_path).setup("fit")


def test_sizes_that_the_annotations_leave_out(tmp_path):
    content = split()
    for image in content["images"]:
        del image["width"], image["height"]
    assert data(coco(tmp_path, train=content)).annotations("train").picture(0).size == (20, 40)


def test_classes_of_splits_and_checkpoints_must_agree(tmp_path):
    other = split(boxes=[], categories=[{"id": 3, "name": "cat"}, {"id": 7, "name": "cow"}])
    made = data(coco(tmp_path, val=other))
    with pytest.raises(
        UserError, match="data.val='val' .* 7 cow, but the model is for 3 cat, 7 dog"
    ):
        made.setup("fit")
    assets = made.assets()
    again = data(tmp_path)
    again.use_assets(assets)
    assert again.model_arguments == {"num_classes": 2}
    shapes = DetectionData()
    shapes.prepare_data()
    with pytest.raises(UserError, match="1 circle.* but the checkpoint is for 3 cat"):
        shapes.use_assets(assets)


def voc(root, objects, size=(40, 20), name="one"):
    picture(root / f"JPEGImages/{name}.jpg")
    (root / "Annotations").mkdir(exist_ok=True)
    (root / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
    body = "".join(
        f"<object><name>{kind}</name><difficult>{hard}</difficult><part><name>head</name></part>"
        f"<bndbox>{''.join(f'<{k}>{v}</{k}>' for k, v in corners.items())}</bndbox></object>"
        for kind, hard, corners in objects
    )
    width, height = size
    (root / f"Annotations/{name}.xml").write_text(
        f"<annotation><filename>wrong.jpg</filename><size><width>{width}</width>"
        f"<height>{height}</height></size>{body}</annotation>"
    )
    for part in ("train", "val"):
        (root / f"ImageSets/Main/{part}.txt").write_text(f"{name}\n")
    return root


def corners(xmin, ymin, xmax, ymax):
    return {"xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax}


def test_voc(tmp_path):
    objects = [("dog", 0, corners(1, 1, 40, 20)), ("cat", 1, corners(11, 6, 20, 10))]
    made = data(voc(tmp_path, objects, size=(0, 0)))
    made.setup("fit")
    assert made.assets()["labels"] == ["cat", "dog"]
    found = made.annotations("val").picture(0)
    # Pixels count from 1, the last included: the whole picture, and 10 x 5 pixels.
    assert found.boxes.tolist() == [[0, 0, 40, 20], [10, 5, 20, 10]]
    assert found.labels.tolist() == [1, 0]
    assert found.iscrowd.tolist() == [False, True]
    assert made.ground_truth("val")["annotations"][0]["category_id"] == 2


@pytest.mark.parametrize("line", ["my photo 1", "my photo 1 -1", "my photo 1  1", "my photo 1\t0"])
def test_voc_names_with_spaces(tmp_path, line):
    objects = [("traffic light", " 0 ", corners(1, 1, 5, 5))]
    voc(tmp_path, objects, name="my photo 1")
    for part in ("train", "val"):
        (tmp_path / f"ImageSets/Main/{part}.txt").write_text(f"{line}\n")
    made = data(tmp_path)
    made.setup("fit")
    assert made.annotations("train").picture(0).path.name == "my photo 1.jpg"
    assert made.assets()["labels"] == ["traffic light"]


def test_a_voc_name_with_spaces_is_not_another_picture(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "Annotations/my.xml").write_text("<annotation/>")
    (tmp_path / "ImageSets/Main/train.txt").write_text("my photo\n")
    with pytest.raises(UserError, match="my photo.xml does not exist"):
        data(tmp_path).annotations("train")


def test_voc_mistakes(tmp_path):
    made = data(voc(tmp_path, [("dog", 0, corners(1, 1, 5, 5))]))
    made.setup("fit")
    other = data(voc(tmp_path, [("dgo", 0, corners(1, 1, 5, 5))]))
    other.use_assets(made.assets())
    with pytest.raises(UserError, match="one.xml: object 'dgo' .* Did you mean 'dog'"):
        other.annotations("val")
    voc(tmp_path, [("dog", 0, {"xmin": 1, "ymin": 2, "xmax": 3})])
    with pytest.raises(UserError, match="one.xml: object 'dog' has no box"):
        data(tmp_path).setup()
    (tmp_path / "Annotations/one.xml").write_text("<annotation>")
    with pytest.raises(UserError, match="one.xml is not XML"):
        data(tmp_path).setup()
    (tmp_path / "ImageSets/Main/train.txt").unlink()
    with pytest.raises(UserError, match="train.txt does not exist"):
        data(tmp_path).setup()


def spot(image):
    """x0, y0, x1, y1 of what is red."""
    pixels = torch.as_tensor(list(image.getdata())).view(image.height, image.width, 3)
    rows, columns = (pixels[..., 0] > 128).nonzero(as_tuple=True)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


def test_boxes_go_with_what_they_hold():
    image = Image.new("RGB", (100, 60))
    image.paste((255, 0, 0), (2, 10, 22, 30))
    change = Augment(vertical_flip=True, crop=0.7, colour=0.0, scale=(0.5, 1.0))
    shown, cut_away = 0, 0
    for seed in range(60):
        torch.manual_seed(seed)
        corners = torch.tensor([[2.0, 10, 22, 30]])
        boxes = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=(60, 100))
        changed, found, labels = change(image, boxes, torch.tensor([4]))
        assert len(found) == len(labels)
        if len(found):
            assert found[0].tolist() == spot(changed)
            shown += 1
            area = (found[0, 2] - found[0, 0]) * (found[0, 3] - found[0, 1])
            assert area >= detection.VISIBLE * 400
        else:
            cut_away += 1
        assert 0.5 <= change.share() <= 1
    assert shown > 30 and cut_away > 5


def test_augmentation_is_of_the_seed_and_the_epoch(tmp_path):
    made = DetectionData(image_size=(32, 32), examples=8, batch_size=2)
    dataset = made.train_dataloader().dataset
    once, again = (dataset.__getitems__([Pick(3, 1)]) for _ in range(2))
    assert torch.equal(once["pixel_values"], again["pixel_values"])
    other = dataset.__getitems__([Pick(3, 2)])
    assert other["pixel_values"].shape != once["pixel_values"].shape or not torch.equal(
        other["pixel_values"], once["pixel_values"]
    )
    evaluated = made.val_dataloader().dataset.__getitems__([Pick(3, 1)])
    assert evaluated["pixel_values"].shape == (1, 3, 32, 32)


def test_training_resumes_and_scales():
    made = DetectionData(image_size=(48, 64), examples=8, batch_size=2, scale=(0.25, 0.5))
    order = [[t["image_id"] for t in batch["targets"]] for batch in made.train_dataloader()]
    assert sorted(i for batch in order for i in batch) == list(range(1, 9))
    assert all(max(b["pixel_mask"].shape[1:]) <= 32 for b in made.train_dataloader())
    made.load_state_dict({"epoch": 0, "batches": 1})
    assert isinstance(made.progress, LoaderProgress)
    rest = [[t["image_id"] for t in batch["targets"]] for batch in made.train_dataloader()]
    assert rest == order[1:]
    with pytest.raises(UserError, match="data.scale"):
        DetectionData(scale=(1.0, 0.5))


def test_shapes_are_their_own_truth():
    made = DetectionData(image_size=(48, 48), examples=8)
    assert made.model_arguments == {"num_classes": 8}
    truth = made.ground_truth("val")
    assert len(truth["images"]) == 100 and truth["annotations"][0]["id"] == 1
    batch = next(iter(made.val_dataloader()))
    target = batch["targets"][0]
    listed = [a for a in truth["annotations"] if a["image_id"] == target["image_id"]]
    assert len(listed) == len(target["labels"])
    x, y, width, height = listed[0]["bbox"]
    cx, cy, w, h = (target["boxes"][0] * 48).tolist()
    assert (x, y, width, height) == pytest.approx((cx - w / 2, cy - h / 2, w, h), abs=1e-4)
    assert listed[0]["category_id"] == made.assets()["category_ids"][target["labels"][0]]
