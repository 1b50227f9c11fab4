"""Pictures alone: where they are found, how they are divided, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tasks.data.image_tokenizing import ImageTokenizingData
from tasks.errors import UserError


def write(folder, count, ending="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        colour = np.full((10 + i % 3, 12, 3), i, np.uint8)
        Image.fromarray(colour).save(folder / f"{i}.{ending}")


def names(root, split, **options):
    return ImageTokenizingData(str(root), image_size=8, **options).split(split).names


def test_folders_of_splits(tmp_path):
    write(tmp_path / "training/deep/er", 3)
    write(tmp_path / "training", 2, "webp")
    write(tmp_path / "val", 4, "bmp")
    assert names(tmp_path, "train") == ["0.webp", "1.webp", *(f"deep/er/{i}.png" for i in range(3))]
    assert len(names(tmp_path, "val")) == 4
    with pytest.raises(UserError, match="no test split"):
        names(tmp_path, "test")


def test_a_folder_without_splits_is_divided_by_a_hash(tmp_path):
    write(tmp_path / "a", 40)
    write(tmp_path / "b", 40)
    held = {"val_fraction": 0.2, "test_fraction": 0.2}
    parts = [set(names(tmp_path, split, **held)) for split in ("train", "val", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 80
    (tmp_path / "a/0.png").unlink()
    again = set(names(tmp_path, "val", **held))
    assert again == parts[1] - {"a/0.png"}  # each stays where it was
    grouped = names(tmp_path, "val", val_fraction=0.5, group="^[ab]", split_seed=0)
    assert len({name[0] for name in grouped}) == 1 and len(grouped) in (39, 40)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("all.txt", "images/2.png\n\nimages/0.png\n"),
        ("all.tsv", "other\tfile\nx\timages/2.png\ny\timages/0.png\n"),
        ("all.csv", "file,other\n2.png,x\n0.png,y\n"),
        ("all.jsonl", '{"image": "images/2.png"}\n{"image": "images/0.png"}\n'),
    ],
)
def test_lists(tmp_path, file, content):
    write(tmp_path / "images", 3)
    (tmp_path / file).write_text(content)
    data = ImageTokenizingData(str(tmp_path / file), image_size=8, batch_size=2, val_fraction=0.0)
    batch = next(iter(data.loader("train")))
    assert sorted((batch["pixel_values"][:, 0, 0, 0] * 127.5 + 127.5).round().tolist()) == [0, 2]
    (tmp_path / file).rename(tmp_path / f"val{(tmp_path / file).suffix}")
    write(tmp_path / "train", 5)
    assert len(names(tmp_path, "train")) == 5 and len(names(tmp_path, "val")) == 2


def test_pixels_are_in_minus_one_to_one_and_transparency_shows_the_background(tmp_path):
    write(tmp_path / "train", 1)
    (tmp_path / "val").mkdir()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "val/a.png")
    data = ImageTokenizingData(str(tmp_path), image_size=8, background=(255, 0, 0))
    batch = next(iter(data.loader("val")))
    assert batch["pixel_values"].unique().tolist() == [-1, 1] and batch["file"] == ["a.png"]
    assert data.assets()["preprocess"]["mean"] == (0.5, 0.5, 0.5)


def test_mirrored_in_training_alone():
    options = {"image_size": 16, "examples": 20, "batch_size": 20}
    plain, flipped = (ImageTokenizingData(augment=a, **options) for a in ("none", "flip"))
    one, other = (next(iter(data.loader("train")))["pixel_values"] for data in (plain, flipped))
    same = (one == other).flatten(1).all(1)
    assert 0 < same.sum() < 20
    assert all(((one == other.flip(-1)).flatten(1).all(1) | same).tolist())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"root": "nowhere"}, "data.root nowhere does not exist"),
        ({"root": "empty"}, "empty has no pictures"),
        ({"root": "list.txt"}, r"missing.png does not exist; data.on_bad=skip"),
        ({"root": "table.csv"}, "data.image_column must name the one to read"),
        ({"root": "table.csv", "image_column": "z"}, "no column image_column='z', only: x, y"),
        ({"root": "holes.tsv"}, "holes.tsv line 3 names no picture in the column 'file'"),
        ({"image_size": (8, 0)}, "data.image_size must be"),
        ({"background": (0, 0, 300)}, "must be a colour"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("missing.png\n")
    (tmp_path / "table.csv").write_text("x,y\na,b\n")
    (tmp_path / "holes.tsv").write_text("file\tx\na.png\ty\n\tz\n")
    with pytest.raises(UserError, match=sentence):
        ImageTokenizingData(**options).setup("fit")
