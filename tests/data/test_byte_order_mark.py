"""A byte-order mark, as Windows writes it, is part of no text: in every reader there is."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from types import SimpleNamespace

import pytest
from PIL import Image

from tasks.commands.sentences import given_or_read
from tasks.data.captions import Columns, read_captions
from tasks.data.coco import read_coco
from tasks.data.labelled_texts import read_labelled
from tasks.data.language_modeling import LanguageModelingData
from tasks.data.segmentation import SegmentationData
from tasks.data.text_files import read_lines, read_parallel, read_text
from tasks.data.voc import read_voc
from tasks.errors import UserError

MARK = b"\xef\xbb\xbf"
COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "caption": "red"}],
    }
)
VOC = (
    "<annotation><object><name>cat</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>5</xmax>"
    "<ymax>5</ymax></bndbox></object></annotation>"
)


@pytest.fixture(params=[b"", MARK], ids=["without", "with"])
def write(request, tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(request.param + text.encode())
        return path

    for name in ("a.png", "JPEGImages/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / name)
    return write


def test_sentences(write, tmp_path):
    write("one.tsv", "en\tfr\nred\trouge\n")
    write("two.fr", "rouge\n")
    write("two.en", "red\n")
    write("three.po", 'msgid "rouge"\nmsgstr "red"\n')
    for split in ("one", "two", "three"):
        assert read_parallel(tmp_path, split, "fr", "en") == [("rouge", "red")]
    assert read_lines(tmp_path / "two.fr") == ["rouge"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "text\tlabel\nred\tx\n"),
        ("a.tsv", "red\tx\n"),
        ("a.csv", '"text",label\nred,x\n'),
        ("a.jsonl", '{"text": "red", "label": "x"}\n'),
    ],
)
def test_tables(write, name, text):
    (row,) = read_labelled(write(name, text))
    assert (row.text, row.label) == ("red", "x")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "file\tcaption\na.png\tred\n"),
        ("a.csv", '"file",caption\na.png,red\n'),
        ("a.jsonl", '{"file": "a.png", "caption": "red"}\n'),
        ("annotations/captions_val.json", COCO),
    ],
)
def test_captions(write, name, text):
    (row,) = read_captions([write(name, text)], Columns(), None, "val")
    assert row.text == "red" and row.path.is_file()


@pytest.mark.parametrize(("ending", "text"), [("txt", "red"), ("json", '{"caption": "red"}')])
def test_texts_in_a_tar(write, tmp_path, ending, text):
    path = write(f"in.{ending}", text)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "a.png", "0.png")
        tar.add(path, f"0.{ending}")
    (row,) = read_captions([tmp_path / "a.tar"], Columns(), None, "val")
    assert row.text == "red"


def test_boxes(write, tmp_path):
    found = read_coco(write("train.json", COCO), "train")
    assert found.categories == {1: "cat"} and len(found.pictures[0].boxes) == 1
    write("ImageSets/Main/train.txt", "a\n")
    write("Annotations/a.xml", VOC)
    assert read_voc(tmp_path, "train").pictures[0].boxes.tolist() == [[1, 1, 5, 5]]


def test_names_of_classes(write, tmp_path):
    write("classes.txt", "sky\nroad\n")
    assert SegmentationData(str(tmp_path)).classes == ["sky", "road"]


@pytest.mark.parametrize("folder", [True, False])
def test_long_texts(write, tmp_path, folder):
    root = tmp_path / "texts"
    for name in ("train.txt", "val.txt") if folder else ("one.txt", "two.txt"):
        write(f"texts/{name}", "é" * 30 + "ab" * 5)
    data = LanguageModelingData(str(root), context=4, cache=str(tmp_path / "cache"))
    train, val = ("".join(data.texts(split)) for split in ("train", "val"))
    whole = "é" * 30 + "ab" * 5
    assert train.replace("\n", "") == (whole if folder else whole[:36] * 2)
    assert val.replace("\n", "") == (whole if folder else whole[36:] * 2)


def test_standard_input(monkeypatch):
    lines = MARK + "red\n\ufeffblue\n".encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines)))
    assert list(given_or_read([])) == ["red", "\ufeffblue"]  # within a text it is what it is


def test_a_mark_alone_is_an_empty_file(tmp_path):
    (tmp_path / "a.txt").write_bytes(MARK + b"\n")
    with pytest.raises(UserError, match="a.txt is empty"):
        read_text(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_bytes(MARK + b"a\xff")
    with pytest.raises(UserError, match="byte at offset 4"):
        read_text(tmp_path / "a.txt")
