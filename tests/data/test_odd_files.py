"""Files that no exporter should write: each ends in one sentence that names the file, soon, in bounded memory."""

from __future__ import annotations

import io
import json
import os
import random
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
sys.path.insert(0, str(Path(__file__).parents[1] / "properties"))
from answers import within
from data_files import pictures

import tasks
from tasks.data.captions import json_rows, read_tar, table_fields
from tasks.data.coco import read_coco
from tasks.data.label_lists import listed, number
from tasks.data.labelled_images import labelled_tar
from tasks.data.labelled_texts import read_labelled
from tasks.data.preference_files import read_compared
from tasks.data.sentence_pair_files import read_sentence_pairs
from tasks.data.squad import read_questions
from tasks.data.text_files import read_lines, read_parallel, read_text
from tasks.data.tokenizers import in_runs, make_tokenizer
from tasks.data.voc import named
from tasks.errors import UserError, in_short, some_of

DEEP, LONG, HALF = "[" * 99999, '{"a": ' + "9" * 5000 + "}", '{"a": "\\ud83d!"}'


def said(read, *arguments):
    with within(15), pytest.raises(UserError) as error:
        read(*arguments)
    assert len(str(error.value)) < 1500
    return str(error.value)


def file(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- JSON ---


@pytest.mark.parametrize(
    ("content", "what"),
    [(DEEP, "nests too deep"), (LONG, "a number is too long"), (HALF, r"\ud83d alone")],
)
def test_json_that_cannot_be_taken_in(tmp_path, content, what):
    assert f"a.jsonl line 2 {what}"[:12] in said(
        list, json_rows(file(tmp_path, "a.jsonl", "{}\n" + content))
    )
    for read in (read_coco, read_questions):
        found = said(read, file(tmp_path, "a.json", content), *["train"] * (read is read_coco))
        assert "a.json" in found and what in found
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("0.json")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content.encode()))
    assert what in said(read_tar, tmp_path / "a.tar")


def test_both_halves_of_a_character_are_one(tmp_path):
    rows = json_rows(file(tmp_path, "a.jsonl", '{"a": "\\ud83d\\ude00 \\\\ud83d"}'))
    assert list(rows) == [(1, {"a": "\U0001f600 \\ud83d"})]


def test_lists_of_labels_that_nest_too_deep():
    assert "which is no list of JSON" in said(listed, DEEP, ",", "a.csv line 2")


def test_a_long_value_is_shown_by_its_beginning():
    assert in_short("a" * 999) == "'" + "a" * 79 + " ..."
    assert in_short(json.loads("[" * 900 + "]" * 900)) and in_short(10**9999)


# --- Numbers ---


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"bbox": [0, 0, 10**400, 3]}, "bbox="),
        ({"bbox": ["1" * 9999] * 4}, "bbox="),
        ({"bbox": [0, 0, 3, 3], "area": 10**400}, "area="),
        ({"image_id": "b" * 9999}, "image_id="),
    ],
)
def test_numbers_of_annotations_that_no_array_holds(tmp_path, fields, what):
    pictures(tmp_path, 1)
    box = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 3, 3], **fields}
    images = [{"id": 1, "file_name": "0.png"}]
    content = {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
    path = file(tmp_path, "train.json", json.dumps(content))
    assert what in said(read_coco, path, "train")
    content["annotations"], images[0]["height"] = [], float("inf")
    assert "a side of inf pixels" in said(
        read_coco, file(tmp_path, "a.json", json.dumps(content)), "a"
    )


def test_numbers_to_learn_that_are_infinite_in_single_precision(tmp_path):
    assert "below 3.4e+38" in said(number, "1e39", "a.csv line 2")
    assert number("1e38", "") == 1e38
    table = file(tmp_path, "a.csv", "sentence1,sentence2,score\na,b,1e39\n")
    assert "line 2 has the label '1e39'" in said(read_sentence_pairs, table)
    for margin in (10**400, 1e39):
        row = {"prompt": "a", "chosen": "b", "rejected": "c", "margin": margin}
        assert "margin" in said(read_compared, file(tmp_path, "a.jsonl", json.dumps(row)))


# --- Tables and catalogues ---


def test_separators_that_are_none(tmp_path):
    for mark in ('"', "\r"):
        path = file(tmp_path, "a.csv", f"sep={mark}\r\na,b\n")
        assert "which is no separator" in said(list, table_fields(path))


def test_a_line_that_goes_on_behind_its_end(tmp_path):
    assert "a.csv line 1" in said(list, table_fields(file(tmp_path, "a.csv", "a\rb,c\nd,e\n")))


def test_a_table_of_its_separator_alone(tmp_path):
    path = file(tmp_path, "a.csv", "sep=;\n")
    assert "a.csv" in said(read_labelled, path, 0, 1)
    assert "a.csv" in said(read_sentence_pairs, path)


@pytest.mark.parametrize("ending", ["po", "mo"])
def test_catalogues_that_are_none(tmp_path, ending):
    for content in (b"\xde\x12\x04\x95", b"\xde\x12\x04\x95" + b"\xff" * 40, b'msgid "a\nmsgstr'):
        file(tmp_path, f"train.{ending}", content)
        assert f"train.{ending}" in said(read_parallel, tmp_path, "train", "en", "fr")


def test_an_unknown_encoding_of_a_catalogue(tmp_path):
    polib = pytest.importorskip("polib")
    made = polib.POFile()
    made.metadata = {"Content-Type": "text/plain; charset=UTF-8"}
    made.append(polib.POEntry(msgid="a", msgstr="b"))
    file(tmp_path, "train.mo", made.to_binary().replace(b"UTF-8", b"UTF-X"))
    assert "train.mo" in said(read_parallel, tmp_path, "train", "en", "fr")


# --- What is no file ---


def test_pipes_and_folders_in_the_place_of_files(tmp_path):
    for make in (os.mkfifo, os.mkdir, lambda path: path.symlink_to(path.name)):
        place = tmp_path / make.__name__
        place.mkdir()
        for name in ("train.txt", "train.jsonl", "train-0.tar"):
            make(place / name)
        for read in (read_text, read_lines):
            assert "train.txt is" in said(read, place / "train.txt")
        assert "train-0.tar is" in said(read_tar, place / "train-0.tar")
        data = tasks.LanguageModelingData(str(place), context=4, cache=str(tmp_path / "cache"))
        assert "train.txt" in said(data.setup, "fit")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="Linux has such a file")
def test_files_that_cannot_be_read():
    assert "/proc/self/mem cannot be read" in said(read_text, Path("/proc/self/mem"))


def test_a_tokenizer_that_is_a_pipe(tmp_path):
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).mkdir(parents=True)
        os.mkfifo(tmp_path / name / name)
        assert f"{name} is no file" in said(make_tokenizer, str(tmp_path / name), [])


def test_a_picture_that_is_a_pipe(tmp_path):
    pictures(tmp_path, 1)
    os.mkfifo(tmp_path / "1.png")
    file(tmp_path, "train.csv", "file,label\n0.png,a\n1.png,b\n")
    file(tmp_path, "train.txt", "0.png\n1.png\n")
    for data in (
        tasks.ImageClassificationData(str(tmp_path)),
        tasks.ImageTokenizingData(str(tmp_path)),
    ):
        assert "1.png" in said(data.setup, "fit")


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "a\x00b.png"])
def test_names_of_pictures_that_no_file_can_have(tmp_path, name):
    pictures(tmp_path, 1)
    row = {"image": name, "question": "a", "answer": "b", "caption": "c", "label": "d"}
    file(tmp_path, "train.jsonl", json.dumps(row))
    for kind in (tasks.ImageTextData, tasks.VisualQuestionsData, tasks.ImageClassificationData):
        found = said(kind(str(tmp_path)).setup, "fit")
        assert name[:9] in found and found != "embedded null byte"
    content = {"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": []}
    assert "in none of" in said(read_coco, file(tmp_path, "a.json", json.dumps(content)), "a")


def test_names_that_are_no_characters(tmp_path):
    """A folder without splits is divided by what its files are called."""
    odd = os.fsdecode(b"\xff")
    for name in ("cat", "dog"):
        for i in range(10):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{odd}{i}.png")
    for seed in (None, 0):
        data = tasks.ImageClassificationData(
            str(tmp_path), image_size=4, val_fraction=0.3, split_seed=seed
        )
        data.setup("fit")
        assert len(data.split("train").names) + len(data.split("val").names) == 20


# --- Tars ---


def with_size(folder, size, name="cat/0.png"):
    """A tar whose only header says another size."""
    member = tarfile.TarInfo(name)
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return file(folder, "train-0.tar", bytes(header) + bytes(10240))


@pytest.mark.parametrize(
    "size", [b"\xff" * 11 + b"\x00", b"\x80" + b"\xff" * 11, b"\x80" + b"\x00" * 3 + b"\x7f" * 8]
)
@pytest.mark.parametrize("name", ["cat/0.png", "cat/0.txt"])
def test_tars_that_say_impossible_sizes(tmp_path, size, name):
    path = with_size(tmp_path, size, name)
    for read in (read_tar, labelled_tar):
        assert "train-0.tar" in said(read, path)


def test_links_pipes_and_ways_out_of_a_tar_are_no_pictures(tmp_path):
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        for kind, name in (
            (tarfile.SYMTYPE, "cat/1.png"),
            (tarfile.FIFOTYPE, "cat/2.png"),
            (tarfile.CHRTYPE, "cat/3.png"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        picture = io.BytesIO()
        Image.new("RGB", (4, 4)).save(picture, "PNG")
        for name in ("cat/0.png", "../dog/0.png", "/cow/0.png"):
            member = tarfile.TarInfo(name)
            member.size = len(picture.getvalue())
            tar.addfile(member, io.BytesIO(picture.getvalue()))
    before = sorted(tmp_path.rglob("*"))
    found = labelled_tar(tmp_path / "train.tar")
    assert (found.classes, found.names) == (["cat", "cow"], ["cat/0.png", "cow/0.png"])
    assert len(read_tar(tmp_path / "train.tar")) == 3
    assert sorted(tmp_path.rglob("*")) == before


# --- Long lines ---


def test_a_text_without_white_space_is_learnt_from_soon():
    text = "".join(random.Random(0).choices("abcdefgh", k=200000))
    assert len(list(in_runs([text, "a b"]))) == 101 and "".join(in_runs([text])) == text
    with within(15):
        made = make_tokenizer("bpe", [text], 300)
    assert made.decode(made.encode(text[:99])) == text[:99]


def test_many_columns_are_named_by_the_first(tmp_path):
    table = file(tmp_path, "a.csv", ",".join(f"c{i}" for i in range(5000)) + "\na,b\n")
    assert "c19, ..." in said(read_labelled, table)
    assert some_of(["a" * 999, "b"]) == "a" * 80 + " ..., b"


def test_the_line_of_a_split_is_walked_once(tmp_path):
    (tmp_path / "a 1.xml").touch()
    assert named(tmp_path, "a 1").name == "a 1.xml"
    assert named(tmp_path, "b 1 -0.5").name == "b 1 -0.5.xml"
    assert named(tmp_path, "b  -1").name == "b.xml"
    for line in ("1 " * 100000 + "x", "a" + " " * 200000 + "b"):
        with within(5):
            named(tmp_path, line)
