"""Data sets of ``datasets`` on disk and parquet files: the same rows as of our own files, for every task."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

import tasks
from tasks.data.kept import as_files
from tasks.data.kept_pictures import as_clips
from tasks.data.prompts import PromptData
from tasks.errors import UserError

datasets = pytest.importorskip("datasets")
TEXTS = ["a red circle", "a blue star", "two green squares", 'a "quoted"\ttext\nof two lines']
NAMES = ["bad", "good"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reviews(count=12):
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "class": datasets.ClassLabel(names=NAMES)}
    )
    rows = {
        "sentence": [f"{TEXTS[i % 4]} {i}" for i in range(count)],
        "class": [i % 2 for i in range(count)],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def kept(kind, data, place):
    """A data set in one of the ways that people keep it."""
    if kind == "disk":
        datasets.DatasetDict(data).save_to_disk(place)
        return place
    (place / "data").mkdir(parents=True)
    for split, one in data.items():
        half = len(one) // 2
        for i, part in enumerate((one.select(range(half)), one.select(range(half, len(one))))):
            part.to_parquet(place / "data" / f"{split}-{i:05}-of-00002.parquet")
    return place


COLUMNS = {"text": "sentence", "label": "class"}
EASY = {"tokenizer": "char", "columns": COLUMNS}


@pytest.mark.parametrize("kind", ["disk", "parquet"])
def test_texts_and_their_classes_by_name(folder, kind):
    place = kept(
        kind, {"train": reviews(), "validation": reviews(6), "test": reviews(4)}, folder / "d"
    )
    data = tasks.TextClassificationData(str(place), **EASY)
    rows = data.rows("train")
    assert [row.text for row in rows] == reviews()["sentence"][:]
    assert [row.label for row in rows] == [NAMES[i % 2] for i in range(12)]
    assert data.classes == NAMES and len(data.rows("val")) == 6 and len(data.rows("test")) == 4
    batch = next(iter(data.train_dataloader()))
    assert {"input_ids", "labels", "mask"} <= batch.keys()


def test_one_split_is_divided(folder):
    reviews(40).save_to_disk(folder / "d")
    data = tasks.TextClassificationData(str(folder / "d"), **EASY)
    assert sum(len(data.rows(split)) for split in ("train", "val", "test")) == 40
    assert len(data.rows("val")) >= 2


def test_other_tables_take_columns_too(folder):
    (folder / "d.csv").write_text(
        "sentence,class\n" + "".join(f"text {i},{'xy'[i % 2]}\n" for i in range(20))
    )
    data = tasks.TextClassificationData("d.csv", val_fraction=0.5, **EASY)
    assert data.classes == ["x", "y"]


def test_a_file_that_changes_is_read_anew(folder):
    (folder / "d.jsonl").write_text('{"a": "one"}\n')
    first = as_files("d.jsonl", {"text": "a"})
    assert as_files("d.jsonl", {"text": "a"}) == first != as_files("d.jsonl", {"other": "a"})
    (folder / "d.jsonl").write_text('{"a": "one"}\n{"a": "two"}\n')
    assert len((as_files("d.jsonl", {"text": "a"}) / "d.jsonl").read_text().splitlines()) == 2


def picture(i):
    pixels = np.full((16, 20, 3), (i * 20, 3, 200 * (i % 2)), np.uint8)
    return Image.fromarray(pixels)


def pictures(count=8):
    rows = {"photo": [picture(i) for i in range(count)], "class": [i % 2 for i in range(count)]}
    rows["said"] = [f"a picture {i}" for i in range(count)]
    kinds = {"photo": datasets.Image(), "class": datasets.ClassLabel(names=NAMES)}
    return datasets.Dataset.from_dict(
        rows, features=datasets.Features(kinds | {"said": datasets.Value("string")})
    )


@pytest.mark.parametrize("kind", ["disk", "parquet"])
def test_pictures(folder, kind):
    place = kept(kind, {"train": pictures(), "test": pictures(4)}, folder / "d")
    columns = {"image": "photo", "label": "class"}
    data = tasks.ImageClassificationData(
        str(place), image_size=16, columns=columns, val_fraction=0.25
    )
    data.setup("fit")
    assert data.classes == NAMES
    split = data.split("test")
    assert split.labels.tolist() == [0, 1, 0, 1]
    for i in range(4):
        np.testing.assert_array_equal(
            np.asarray(split.read(i, (255, 255, 255))), np.asarray(picture(i))
        )
    captions = tasks.ImageTextData(
        str(place),
        columns={"image": "photo", "caption": "said"},
        tokenizer="bpe",
        vocab_size=300,
        val_fraction=0.5,
    )
    captions.setup("fit")
    assert next(iter(captions.val_dataloader()))["pixel_values"].shape[1] == 3


def test_tags_by_name(folder):
    kinds = {
        "words": datasets.Sequence(datasets.Value("string")),
        "marks": datasets.Sequence(datasets.ClassLabel(names=["O", "B-X", "I-X"])),
    }
    rows = {"words": [["Ann", "went", str(i)] for i in range(12)], "marks": [[1, 0, 0]] * 12}
    data = datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))
    data.save_to_disk(folder / "d")
    made = tasks.TaggingData(
        str(folder / "d"), columns={"tokens": "words", "tags": "marks"}, tokenizer="char"
    )
    assert list(made.texts("train")[0].tags) == ["B-X", "O", "O"]


def test_translations(folder):
    rows = {"translation": [{"de": f"ein\tKreis {i}", "en": f"a circle {i}"} for i in range(10)]}
    both = {
        "train": datasets.Dataset.from_dict(rows),
        "validation": datasets.Dataset.from_dict(rows),
    }
    place = kept("parquet", both, folder / "d")
    data = tasks.TranslationData(str(place), source="de", target="en", tokenizer="char")
    assert tuple(data.pairs("train")[3]) == ("ein Kreis 3", "a circle 3")


def test_long_texts(folder):
    rows = {"article": [f"{TEXTS[0]} number {i} is long enough" for i in range(40)]}
    datasets.Dataset.from_dict(rows).save_to_disk(folder / "d")
    data = tasks.LanguageModelingData(str(folder / "d"), context=8, columns={"text": "article"})
    assert "".join(data.texts("train")).startswith("a red circle number 0")
    with pytest.raises(UserError, match="no column 'text' for a language model, but x, y"):
        as_files(str(folder / "d"), {"x": "article", "y": "article"}, "txt")


def test_questions(folder):
    rows = {
        "id": [str(i) for i in range(6)],
        "question": ["Who?"] * 6,
        "context": [f"Ann went home {i}." for i in range(6)],
        "answers": [{"text": ["Ann"], "answer_start": [0]}] * 6,
    }
    both = {name: datasets.Dataset.from_dict(rows) for name in ("train", "validation")}
    place = kept("disk", both, folder / "d")
    data = tasks.QuestionAnsweringData(str(place), tokenizer="char")
    assert data.rows("train")[0].answers[0].text == "Ann"


def test_mistakes_are_one_sentence(folder):
    reviews().save_to_disk(folder / "d")
    with pytest.raises(UserError) as error:
        tasks.TextClassificationData(
            str(folder / "d"), columns={"text": "sentense", "label": "class"}
        )
    said = str(error.value)
    assert "no column 'sentense' for data.columns text; there are: sentence, class." in said
    assert "Did you mean 'sentence'?" in said and not list(folder.glob(".cache/data/*"))
    (folder / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"bad\.parquet cannot be read"):
        as_files("bad.parquet")
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="has no table"):
        as_files("empty", COLUMNS)
    with pytest.raises(UserError, match="give data.root"):
        as_files(None, COLUMNS)


def test_a_package_that_is_missing(folder, monkeypatch):
    reviews().save_to_disk(folder / "d")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(
        UserError, match=r"needs datasets: pip install 'transformer-family\[datasets\]'"
    ):
        as_files(str(folder / "d"))


def test_a_picture_keeps_its_bytes(folder):
    file = io.BytesIO()
    picture(1).save(file, "JPEG")
    row = {"image": {"bytes": file.getvalue(), "path": None}, "label": "x"}
    datasets.Dataset.from_list([row] * 2).to_parquet(folder / "d.parquet")
    made = as_files("d.parquet")
    first = json.loads((made / "d.jsonl").read_text().splitlines()[0])
    assert (
        first["image"].endswith(".jpg") and (made / first["image"]).read_bytes() == file.getvalue()
    )


def objects(count=8, shape="lists"):
    """Boxes of the class that is the picture's number, and in every third picture none."""
    rows = []
    for i in range(count):
        boxes = [] if i % 3 == 2 else [[1.0, 2.0, 6.0, 5.0], [0.0, 0.0, 3.0, 4.0]]
        kinds = [(i + j) % 2 for j in range(len(boxes))]
        pairs = [{"bbox": b, "category": k} for b, k in zip(boxes, kinds, strict=True)]
        rows.append(pairs if shape == "rows" else {"bbox": boxes, "category": kinds})
    one = {
        "bbox": datasets.Sequence(datasets.Value("float32"), length=4),
        "category": datasets.ClassLabel(names=NAMES),
    }
    several = {name: datasets.Sequence(kind) for name, kind in one.items()}
    kinds = {"photo": datasets.Image(), "objects": [one] if shape == "rows" else several}
    data = {"photo": [picture(i) for i in range(count)], "objects": rows}
    return datasets.Dataset.from_dict(data, features=datasets.Features(kinds))


@pytest.mark.parametrize("shape", ["lists", "rows"])
@pytest.mark.parametrize("kind", ["disk", "parquet"])
def test_boxes(folder, kind, shape):
    both = {"train": objects(shape=shape), "validation": objects(4, shape)}
    place = kept(kind, both, folder / "d")
    columns = {"image": "photo", "objects": "objects"}
    data = tasks.DetectionData(str(place), image_size=(32, 32), augment=False, columns=columns)
    data.setup("fit")
    assert data.categories == dict(enumerate(NAMES))
    found = data.annotations("val")
    assert len(found) == 4 and len(data.annotations("train")) == 8
    first = found.picture(1)
    assert first.boxes.tolist() == [[1, 2, 7, 7], [0, 0, 3, 4]] and first.labels.tolist() == [1, 0]
    assert len(found.picture(2).boxes) == 0 and found.picture(1).size == (16, 20)
    np.testing.assert_array_equal(np.asarray(found.image(1)), np.asarray(picture(1)))


def test_boxes_whose_classes_have_no_names(folder):
    rows = [
        {"image": picture(i), "objects": {"bbox": [[1, 1, 4, 4]], "category": [7 + i % 2]}}
        for i in range(6)
    ]
    datasets.Dataset.from_list(rows).to_parquet(folder / "d.parquet")
    data = tasks.DetectionData("d.parquet", val_fraction=0.5)
    data.setup("fit")
    assert data.categories == {7: "7", 8: "8"}
    assert len(data.annotations("train")) + len(data.annotations("val")) == 6


@pytest.mark.parametrize("kind", ["disk", "parquet"])
def test_masks(folder, kind):
    masks = [Image.fromarray(np.full((16, 20), i % 3, np.uint8)) for i in range(6)]
    rows = {"image": [picture(i) for i in range(6)], "annotation": masks}
    features = datasets.Features({name: datasets.Image() for name in rows})
    whole = datasets.Dataset.from_dict(rows, features=features)
    place = kept(kind, {"train": whole, "test": whole}, folder / "d")
    data = tasks.SegmentationData(str(place), image_size=16, val_fraction=0.34)
    data.setup("fit")
    assert data.classes == ["0", "1", "2"]
    assert len(data.pairs("train")) + len(data.pairs("val")) == 6
    last = data.pairs("test")[5]
    assert (np.asarray(Image.open(last.mask)) == 2).all()
    np.testing.assert_array_equal(np.asarray(Image.open(last.image)), np.asarray(picture(5)))


def test_objects_and_masks_of_another_form(folder):
    row = {"image": picture(0), "objects": {"bbox": [[1, 1, 4, 4]], "name": ["x"]}}
    datasets.Dataset.from_list([row]).to_parquet(folder / "d.parquet")
    with pytest.raises(UserError, match=r"row 0 of d has the object .* needs bbox and category"):
        tasks.DetectionData("d.parquet")
    with pytest.raises(UserError, match="has no column 'boxes' for data.columns objects"):
        tasks.DetectionData("d.parquet", columns={"image": "image", "objects": "boxes"})
    with pytest.raises(UserError, match=r"has no mask \(image, objects\)"):
        tasks.SegmentationData("d.parquet")
    with pytest.raises(UserError, match="is no data set of datasets"):
        tasks.SegmentationData(columns={"mask": "m"})
    with pytest.raises(UserError, match="has no picture in 'image'"):
        tasks.DetectionData("d.parquet", columns={"objects": "objects"})


def clips(frames=3, count=6):
    rows = {
        "shot": [[picture(i + j) for j in range(frames)] for i in range(count)],
        "verb": [i % 2 for i in range(count)],
    }
    kinds = {
        "shot": datasets.Sequence(datasets.Image()),
        "verb": datasets.ClassLabel(names=["push", "pull"]),
    }
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


@pytest.mark.parametrize("kind", ["disk", "parquet"])
def test_clips(folder, kind):
    place = kept(kind, {"train": clips(), "validation": clips(count=2)}, folder / "d")
    columns = {"frames": "shot", "label": "verb"}
    data = tasks.VideoClassificationData(
        str(place), frames=3, image_size=16, batch_size=2, columns=columns
    )
    data.setup("fit")
    assert data.classes == ["pull", "push"]
    split = data.split("val")
    assert len(data.split("train").labels) == 6 and sorted(split.labels.tolist()) == [0, 1]
    first = split.labels.tolist().index(1)
    for i, frame in enumerate(split.read(first, (255, 255, 255))):
        np.testing.assert_array_equal(np.asarray(frame), np.asarray(picture(i)))


def test_videos_keep_their_bytes_and_clips_without_a_class_are_refused(folder):
    rows = [{"video": {"bytes": b"v", "path": "a.webm"}, "label": 7}]
    datasets.Dataset.from_list(rows).to_parquet(folder / "d.parquet")
    made = as_clips("d.parquet")
    assert [path.relative_to(made).as_posix() for path in made.rglob("*.*")] == ["7/0000000.webm"]
    assert (made / "7/0000000.webm").read_bytes() == b"v"
    for changed, said in (
        ({"label": "a/b"}, "row 0 of d has the label 'a/b', which can be no folder's name"),
        ({"label": None}, "row 0 of d needs a video, or its frames, and a label"),
        ({"video": "v"}, "has 'v' as a clip: it needs a video or a list of pictures"),
    ):
        datasets.Dataset.from_list([{**rows[0], **changed}]).to_parquet(folder / "d.parquet")
        with pytest.raises(UserError, match=re.escape(said)):
            as_clips("d.parquet")
    assert len(list(folder.glob(".cache/data/*"))) == 1


def test_pictures_of_a_table_whose_columns_are_renamed(folder):
    (folder / "photos/images").mkdir(parents=True)
    lines = ["photo,kind"]
    for i in range(20):
        Image.new("RGB", (8, 8), (12 * i, 0, 0)).save(folder / f"photos/images/{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]}")
    (folder / "photos/all.csv").write_text("\n".join(lines))
    columns = {"image": "photo", "label": "kind"}
    data = tasks.ImageClassificationData(str(folder / "photos"), (8, 8), columns=columns)
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["pixel_values"].shape[1:] == (3, 8, 8)


def as_lines(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def photos(pictures, file, column, values):
    """A table of pictures whose column is called ``photo``."""
    pictures.mkdir(parents=True, exist_ok=True)
    for i in range(len(values)):
        picture(i).save(pictures / f"{i}.png")
    rows = [f"{i}.png,{value}" for i, value in enumerate(values)]
    file.write_text("\n".join([f"photo,{column}", *rows]) + "\n")


def test_lists_and_numbers_of_lines_stay_what_they_are(folder):
    asked = [[{"role": "user", "content": f"{i} + 2"}] for i in range(20)]
    as_lines(folder / "p.jsonl", [{"question": one, "gold": 4} for one in asked])
    columns = {"prompt": "question", "answer": "gold"}
    row = PromptData("p.jsonl", columns=columns).rows("train")[0]
    assert row.prompt in asked and row.fields == {"answer": 4}
    as_lines(folder / "t.jsonl", [{"words": ["a", "b"], "marks": ["O", "O"]}] * 20)
    made = as_files("t.jsonl", {"tokens": "words", "tags": "marks"})
    first = json.loads((made / "t.jsonl").read_text().splitlines()[0])
    assert first == {"tokens": ["a", "b"], "tags": ["O", "O"]}


def test_lists_of_pictures_are_found_from_the_cache_too(folder):
    as_lines(
        folder / "d/all.jsonl",
        [{"seen": ["0.png", "1.png"], "said": "x"}, {"seen": ["1.png"], "said": "y"}],
    )
    for i in range(2):
        picture(i).save(folder / f"d/{i}.png")
    made = as_files("d", {"images": "seen", "text": "said"})
    rows = [json.loads(line) for line in (made / "all.jsonl").read_text().splitlines()]
    assert rows[0]["images"] == [str(folder / "d/0.png"), str(folder / "d/1.png")]


def test_quotes_and_folders_of_pictures_hold_beside_names_of_columns(folder):
    rows = ["sentence\tclass", *(f'"a ""red"" thing {i}"\t{"xy"[i % 2]}' for i in range(20))]
    (folder / "q.tsv").write_text("\n".join(rows) + "\n")
    data = tasks.TextClassificationData("q.tsv", quotes=True, **EASY)
    assert all('a "red" thing' in row.text for row in data.rows("train"))
    photos(folder / "im/pics", folder / "im/all.csv", "said", [f"picture {i}" for i in range(20)])
    columns = {"image": "photo", "caption": "said"}
    data = tasks.ImageTextData(
        "im", images="pics", columns=columns, tokenizer="char", val_fraction=0.3
    )
    data.setup("fit")
    assert next(iter(data.val_dataloader()))["pixel_values"].shape[1] == 3


def test_a_name_without_an_ending_spoils_no_others(folder):
    photos(folder, folder / "one.csv", "kind", "ab" * 10)
    (folder / "one.csv").write_text((folder / "one.csv").read_text().replace("7.png,", "7,", 1))
    columns = {"image": "photo", "label": "kind"}
    data = tasks.ImageClassificationData("one.csv", (8, 8), columns=columns, on_bad="skip")
    data.setup("fit")
    assert len(data.split("train").labels) + len(data.split("val").labels) == 19


def test_data_of_two_kinds_or_of_several_sets_are_refused(folder):
    place = kept("parquet", {"train": reviews()}, folder / "d")
    (place / "extra.csv").write_text("text,label\na,b\n")
    with pytest.raises(UserError, match=r"holds tables \(extra.csv\) beside .parquet files"):
        tasks.TextClassificationData(str(place), **EASY)
    for name in ("de", "en"):
        kept("parquet", {"train": reviews()}, folder / "several" / name)
    with pytest.raises(
        UserError, match=r"of train in several folders .*several/de/data.*several/en"
    ):
        tasks.TextClassificationData("several", **EASY)
    (folder / "split/train").mkdir(parents=True)
    for i in range(2):  # parts of one split
        reviews(40).to_parquet(folder / f"split/train/{i:04}.parquet")
    assert len(tasks.TextClassificationData("split", **EASY).rows("train")) > 40


def test_each_of_several_tasks_is_read_so_too(folder):
    rows = {"q": [f"say {i}" for i in range(12)], "a": [str(i) for i in range(12)]}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "t.parquet")
    as_lines(folder / "t.jsonl", [{"q": f"say {i}", "a": str(i)} for i in range(12)])
    data = tasks.TextToTextData(
        tasks={"one": {"root": "t.parquet"}, "two": {"root": "t.jsonl"}},
        columns={"source": "q", "target": "a"},
        tokenizer="char",
    )
    data.setup("fit")
    assert len(data.train_dataloader()) > 0


def test_rows_without_a_text_are_left_out(folder):
    datasets.Dataset.from_dict({"text": ["one", None, "two"]}).to_parquet(folder / "d.parquet")
    made = as_files("d.parquet", None, "txt")
    assert next(made.glob("*.txt")).read_text() == "one\ntwo\n"
