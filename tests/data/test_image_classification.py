"""Every layout of classified pictures, what augmentation does, and each mistake in one sentence."""

from __future__ import annotations

import logging
import pickle
import random
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from family.inputs.pictures import WHITE
from tasks.data import shapes
from tasks.data.augment import ClassificationAugment, RandAugment, mirror, shift
from tasks.data.image_classification import ImageClassificationData
from tasks.data.labelled_images import READERS, labelled_folder, labelled_tar
from tasks.errors import UserError

COLOURS = {"cat": (200, 0, 0), "dog": (0, 200, 0), "emu": (0, 0, 200)}


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def write_split(folder, count=4, classes=COLOURS, size=(12, 10)):
    """Pictures of one colour a class."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", size, COLOURS.get(name, (9, 9, 9))).save(folder / name / f"{i}.png")


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val", "test"):
        write_split(tmp_path / split)
    return tmp_path


def data(root, **options):
    options = {"image_size": 8, "batch_size": 5, "augment": "none", **options}
    return ImageClassificationData(None if root is None else str(root), **options)


def colours_fit(loader, found):
    """Every picture has the colour of its class; returns the labels."""
    labels = []
    for batch in loader:
        pictures = found.preprocess.restore(batch["pixel_values"])
        assert batch["pixel_values"].dtype == torch.float32
        for picture, label in zip(pictures, batch["labels"].tolist(), strict=True):
            assert picture[:, 4, 4].tolist() == list(COLOURS[found.classes[label]])
            labels.append(label)
    return labels


@pytest.mark.parametrize("cache", [True, False])
def test_folder(root, cache):
    found = data(root, cache=cache)
    found.setup("fit")
    assert found.model_arguments == {"num_classes": 3, "image_size": (8, 8)}
    assert found.assets()["labels"] == ["cat", "dog", "emu"]
    assert len(colours_fit(found.train_dataloader(), found)) == 10
    assert sorted(colours_fit(found.val_dataloader(), found)) == [0] * 4 + [1] * 4 + [2] * 4
    assert len(colours_fit(found.test_dataloader(), found)) == 12
    assert len(colours_fit(found.predict_dataloader(), found)) == 12


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_tar(root, ending):
    for split in ("train", "test"):
        with tarfile.open(root / f"{split}.{ending}", f"w:{ending[4:]}") as tar:
            tar.add(root / split, split)
    for split in ("train", "val", "test"):
        shutil.rmtree(root / split)
    found = data(root, val_fraction=0.3, cache=False)
    assert found.layout == "tar"
    train, val = found.split("train"), found.split("val")
    assert len(train.names) + len(val.names) == 12
    assert not set(train.names) & set(val.names)
    assert "cat/0.png" in train.names + val.names
    assert colours_fit(found.val_dataloader(), found)
    assert colours_fit(found.train_dataloader(), found)
    assert len(colours_fit(found.test_dataloader(), found)) == 12
    pickle.dumps(found.train_dataloader().dataset)  # as workers that are spawned need


LAYOUTS = {
    "flat": ["cat/0.png", "cat/1.png", "cat-2/0.png", "dog/0.png"],
    "nested": ["cat/s1/0.png", "cat/s2/0.png", "dog/s1/0.png"],
    "unequal": ["cat/0.png", "dog/s1/t/0.png", "dog/1.png"],
    "hidden": ["cat/0.png", ".dog/0.png", "dog/.s1/0.png", "dog/.1.png", "dog/2.png"],
    "one": ["cat/0.png", "cat/s1/0.png"],
}


@pytest.mark.parametrize("around", ["", "train/", "deep/train/"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tar_is_read_as_the_folder_in_it(tmp_path, layout, around):
    for i, name in enumerate(LAYOUTS[layout]):
        path = tmp_path / "on_disk" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        tar.add(tmp_path / "on_disk", around or ".")
    folder = labelled_folder(tmp_path / "on_disk", "stop")
    packed = labelled_tar(tmp_path / "train.tar")
    assert packed.classes == folder.classes and packed.names == folder.names
    assert packed.labels.tolist() == folder.labels.tolist()
    for i in range(len(folder.names)):
        assert packed.read(i, WHITE).tobytes() == folder.read(i, WHITE).tobytes()


def test_held_out_by_name(tmp_path):
    write_split(tmp_path, count=40)
    found = data(tmp_path, val_fraction=0.25)
    train, val = found.split("train").names, found.split("val").names
    assert sorted(train + val) == sorted(found._stored("train").names)
    assert 15 <= len(val) <= 45
    # More pictures move none from one side to the other.
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "new.png")
    more = data(tmp_path, val_fraction=0.25)
    assert set(train) <= set(more.split("train").names)
    assert set(val) <= set(more.split("val").names)
    with pytest.raises(UserError, match="no test split"):
        found.test_dataloader()
    # Without a test split the validation split is predicted.
    assert len(colours_fit(found.predict_dataloader(), found)) == len(val)


def test_divided_by_classes_and_groups(tmp_path):
    write_split(tmp_path, count=40)  # of each of three classes
    found = data(tmp_path, val_fraction=0.25, test_fraction=0.1, split_seed=1)
    parts = {split: found.split(split) for split in ("train", "val", "test")}
    assert sorted(name for part in parts.values() for name in part.names) == sorted(
        found._stored("train").names
    )
    assert [np.bincount(part.labels).tolist() for part in parts.values()] == [
        [26] * 3,
        [10] * 3,
        [4] * 3,
    ]
    assert len(colours_fit(found.predict_dataloader(), found)) == 12
    other = data(tmp_path, val_fraction=0.25, test_fraction=0.1, split_seed=2)
    assert set(other.split("val").names) != set(parts["val"].names)
    for seed in (None, 1):  # 0.png of every class, 1.png of every class ...
        alike = data(tmp_path, val_fraction=0.25, split_seed=seed, group=r"\d+\.png")
        train, val = ({Path(n).name for n in alike.split(s).names} for s in ("train", "val"))
        assert not train & val and len(train | val) == 40
    with pytest.raises(UserError, match=r"data.group='\(' is no regular expression"):
        data(tmp_path, group="(")


def test_a_share_of_the_training_split():
    def names(share):
        data = ImageClassificationData(image_size=16, examples=200, train_fraction=share)
        return set(data.split("train").names)

    few, more = names(0.1), names(0.5)
    assert (len(few), len(more), len(names(1.0))) == (20, 100, 200)
    assert few < more
    with pytest.raises(UserError, match="train_fraction must be above 0 and at most 1, not 0"):
        names(0)


def test_no_fraction_validates_on_test(root):
    shutil.rmtree(root / "val")
    found = data(root, val_fraction=0)
    assert len(found.split("train").names) == len(found.split("val").names) == 12


@pytest.mark.parametrize("layout", ["cifar10", "fashion_mnist"])
def test_torchvision(tmp_path, layout, monkeypatch):
    folder = tmp_path / ("cifar-10-batches-py" if layout == "cifar10" else "FashionMNIST")
    folder.mkdir()
    found = data(tmp_path)
    assert found.layout == layout
    with pytest.raises(UserError, match=f"does not hold {layout} as torchvision stores it"):
        found.setup("fit")

    class Reader:
        def __init__(self, root, train, download):
            assert not download
            shape = (20, 28, 28) if layout == "fashion_mnist" else (20, 32, 32, 3)
            self.data = np.full(shape, 50 if train else 100, np.uint8)
            self.targets, self.classes = [0, 1] * 10, ["one", "two"]

    monkeypatch.setitem(READERS, layout, (Reader, folder.name))
    found = data(tmp_path, val_fraction=0.3)
    found.setup("fit")
    batch = next(iter(found.test_dataloader()))
    assert (found.preprocess.restore(batch["pixel_values"]) == 100).all()
    assert batch["labels"].tolist() == [0, 1, 0, 1, 0]


def test_shapes():
    found = data(None, examples=30, image_size=24)
    found.setup("fit")
    assert found.classes == list(shapes.CLASSES)
    batch = next(iter(found.val_dataloader()))
    scenes = [shapes.sample(i, 0, "val") for i in range(5)]
    assert batch["labels"].tolist() == [shapes.label(scene) for scene in scenes]
    pictures = found.preprocess.restore(batch["pixel_values"])
    drawn = np.asarray(shapes.draw(scenes[3], 24))
    assert (pictures[3].permute(1, 2, 0).numpy() == drawn).all()
    # Where the input is not square, nothing of the scene is cut away.
    wide = data(None, examples=30, image_size=(12, 24))
    pictures = wide.preprocess.restore(next(iter(wide.val_dataloader()))["pixel_values"])
    squashed = np.asarray(shapes.draw(scenes[3], 24).resize((24, 12)))
    assert (pictures[3].permute(1, 2, 0).numpy() == squashed).all()


# --- Mistakes --------------------------------------------------------------------------------


def test_pictures_beside_the_class_folders_of_a_tar(root):
    Image.new("RGB", (8, 8)).save(root / "train" / "stray.png")
    with tarfile.open(root / "train.tar", "w") as tar:
        tar.add(root / "train", "train")
    with pytest.raises(
        UserError, match=r"train/stray.png in .* lies beside the folders of classes"
    ):
        data(root, layout="tar").setup("fit")


def test_damaged_tar(tmp_path):
    (tmp_path / "train.tar.gz").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"train.tar.gz is not a tar that can be read"):
        data(tmp_path).setup("fit")


def test_validation_classes_that_train_has_not(root):
    (root / "val" / "dog").rename(root / "val" / "dgo")
    with pytest.raises(UserError, match=r"class 'dgo' of the val .*3 classes.*Did you mean 'dog'"):
        data(root).setup("fit")


def test_fewer_validation_classes_keep_their_ids(root):
    shutil.rmtree(root / "val" / "cat")
    found = data(root)
    assert sorted(colours_fit(found.val_dataloader(), found)) == [1] * 4 + [2] * 4


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="holds neither train/CLASS"):
        data(tmp_path).setup("fit")
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="train has no folders of pictures"):
        data(tmp_path).setup("fit")
    with pytest.raises(UserError, match="nowhere does not exist"):
        data(tmp_path / "nowhere").setup("fit")


def test_nothing_held_out(tmp_path):
    write_split(tmp_path, count=1)
    with pytest.raises(UserError, match=r"val_fraction=0.0001 of 3 examples leaves none for val"):
        data(tmp_path, val_fraction=0.0001).setup("fit")
    with pytest.raises(UserError, match=r"val_fraction=1.5 must be"):
        data(tmp_path, val_fraction=1.5)


@pytest.mark.parametrize("cache", [True, False])
def test_unreadable_picture(root, cache, caplog):
    bad = root / "train" / "cat" / "0.png"
    bad.write_text("no picture")
    with pytest.raises(UserError, match="cat/0.png is not a picture"):
        data(root, cache=cache).setup("fit")
    cut = root / "train" / "emu" / "2.png"
    cut.write_bytes((root / "train" / "emu" / "1.png").read_bytes()[:-30])
    with caplog.at_level(logging.WARNING):
        found = data(root, cache=cache, on_bad="skip", batch_size=12)
        assert len(found.split("train").names) == 11
        assert "cat/0.png" in caplog.text
        labels = colours_fit(found.train_dataloader(), found)
        assert labels.count(0) >= 3
        assert "emu/2.png is cut short" in caplog.text
    with pytest.raises(UserError, match="emu/2.png is cut short"):
        bad.unlink()
        list(data(root, cache=cache, batch_size=11).train_dataloader())


def test_evaluation_leaves_unreadable_pictures_out(root):
    cut = root / "val" / "cat" / "0.png"
    cut.write_bytes(cut.read_bytes()[:-30])
    for cache in (True, False):
        found = data(root, on_bad="skip", cache=cache)
        labels = colours_fit(found.val_dataloader(), found)
        assert sorted(labels) == [0] * 3 + [1] * 4 + [2] * 4


def test_a_checkpoint_of_other_classes_is_refused(root):
    found = data(root)
    assets = found.assets()
    with pytest.raises(UserError, match=r"'cow' of the checkpoint alone and 'dog' of .* alone"):
        found.use_assets({**assets, "labels": ["cat", "cow", "emu"]})
    with pytest.raises(UserError, match=r"checkpoint: 'emu' of .* alone"):
        found.use_assets({**assets, "labels": ["cat", "dog"]})
    # The size that the model was trained at goes with its weights.
    found = data(root, image_size=16)
    found.use_assets(assets)
    assert found.model_arguments["image_size"] == (8, 8)
    assert next(iter(found.val_dataloader()))["pixel_values"].shape == (5, 3, 8, 8)


@pytest.mark.parametrize("kind", ["rand-m9-mstd0.5-inc1", "rand-m0-mstd1", "rand-m15-mmax30-inc1"])
def test_rand_augment_meets_no_corner_of_the_libraries(kind):
    """Each of its changes at each strength that it draws: of no bits a picture is black."""
    change = RandAugment(kind).change
    picture = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    for op in change.ops:
        op.prob, op.magnitude_std = 1.0, 0.0
        for op.magnitude in (0, 1, 4.9, 9.99, 10, 20, 30):
            changed = np.asarray(op(picture))
            assert changed.shape == (8, 8, 3)
            if op.name == "PosterizeIncreasing" and op.magnitude >= 10:
                assert not changed.any()


def test_unknown_rand_augment():
    with pytest.raises(ValueError, match="rand_augment='strong' is unknown"):
        data(None, rand_augment="strong")


# --- Augmentation ----------------------------------------------------------------------------


def numbered(count=40, size=16):
    """Pictures in which every pixel is another."""
    ramp = torch.arange(1, size * size + 1).clamp(max=255).view(1, 1, size, size)
    return ramp.expand(count, 3, -1, -1).to(torch.uint8)


def test_mirror():
    pictures = numbered()
    found = mirror(pictures)
    kept = (found == pictures).flatten(1).all(1)
    assert ((found == pictures.flip(-1)).flatten(1).all(1) ^ kept).all()
    assert 8 < kept.sum() < 32


def test_shift_moves_each_picture_by_its_own_offset():
    pictures = numbered()
    offsets = set()
    for found in shift(pictures):
        places = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(found, moved(pictures[0], down, right))
        ]
        assert len(places) == 1
        offsets.add(places[0])
    assert {d for d, _ in offsets} == {r for _, r in offsets} == {-2, -1, 0, 1, 2}


def moved(picture, down, right):
    padded = torch.nn.functional.pad(picture, (2, 2, 2, 2))
    return padded[:, 2 - down : 18 - down, 2 - right : 18 - right]


def test_rand_augment_changes_pictures():
    pictures = numbered()
    found = RandAugment("rand-m9-mstd0.5-inc1")(pictures)
    assert found.shape == pictures.shape and found.dtype == torch.uint8
    assert (found != pictures).flatten(1).any(1).sum() > 20


@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1}])
def test_mixed_labels_say_how_much_of_each(options):
    """Pictures of one value each: what a picture holds of a class is what its label says."""
    found = data(None)
    labels = torch.arange(4)
    pictures = (labels * 60).to(torch.uint8)[:, None, None, None].expand(4, 3, 16, 16)
    augment = ClassificationAugment(found.preprocess, 4, "none", **options)
    pixels, mixed = augment(pictures, labels)
    assert mixed.shape == (4, 4) and torch.allclose(mixed.sum(1), torch.ones(4))
    assert ((mixed > 0).sum(1) == 2).any()
    values = (pixels * torch.tensor(found.preprocess.std)[:, None, None]).mean((1, 2, 3))
    means = values + torch.tensor(found.preprocess.mean).mean()
    assert torch.allclose(means * 255, mixed @ (labels * 60.0), atol=0.5)


def test_erasing():
    found = data(None)
    pictures = torch.full((50, 3, 16, 16), 99, dtype=torch.uint8)
    augment = ClassificationAugment(found.preprocess, 4, "none", random_erasing=0.5)
    pixels, _ = augment(pictures, torch.zeros(50))
    plain = found.preprocess.normalise(pictures)
    changed = (pixels != plain).flatten(1).sum(1)
    assert 10 < (changed > 0).sum() < 40
    assert changed.max() < 3 * 16 * 16 * 0.5


@pytest.mark.parametrize("augment", ["crop", "resized_crop"])
def test_augmentation_repeats_with_workers_and_after_a_resume(root, augment):
    options = {
        "augment": augment,
        "rand_augment": "rand-m9-mstd0.5-inc1",
        "random_erasing": 0.5,
        "mixup": 0.5,
        "batch_size": 3,
    }

    def epoch(workers, done=0, **more):
        found = data(root, num_workers=workers, **options, **more)
        found.load_state_dict({"epoch": 0, "batches": done})
        return [(batch["pixel_values"], batch["labels"]) for batch in found.train_dataloader()]

    def same(ones, others):
        return all(map(torch.equal, *map(lambda x: sum(x, ()), (ones, others))))

    whole = epoch(0)
    assert len(whole) == 4
    torch.rand(3)
    assert same(whole, epoch(0))
    assert same(whole, epoch(2))
    assert same(whole[2:], epoch(1, done=2))
    assert not same(whole, epoch(0, seed=1))
