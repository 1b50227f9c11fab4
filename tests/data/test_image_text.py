"""Readers of captions, batches of pictures and sentences, one clear sentence for each mistake."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
import zlib

import pytest
import torch
from PIL import Image

from tasks.data import shapes
from tasks.data.batching import LoaderProgress
from tasks.data.captions import expand
from tasks.data.image_text import ImageTextData, encode_texts
from tasks.errors import UserError

WORDS = ["a red ball", "two blue cars", "the old house", "a red ball", "three green trees"]


def picture(path, mode="RGB", colour=(200, 30, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (10, 8), colour).save(path)


def table(root, rows, name="captions.tsv", header="file\tcaption", folder="images"):
    for file in {row[0] for row in rows}:
        picture(root / folder / file)
    root.mkdir(exist_ok=True)
    between = "\t" if "\t" in header else ","
    (root / name).write_text("\n".join([header, *(between.join(row) for row in rows)]) + "\n")
    return root


def numbered(count=40):
    return [(f"{i}.png", f"{WORDS[i % 5]} {i}") for i in range(count)]


def data(root, **options):
    options = {"image_size": (16, 16), "tokenizer": "char", "batch_size": 4} | options
    return ImageTextData(None if root is None else str(root), **options)


def files(made, split):
    return sorted(made.pairs(split).files)


def test_batch(tmp_path):
    rows = [("0.png", "ab"), ("1.png", "abcd efgh"), ("2.png", "ab"), ("1.png", "Xyz")]
    table(tmp_path, rows, "train.tsv")
    table(tmp_path, rows, "val.tsv")
    made = data(tmp_path, max_tokens=6)
    batch = next(iter(made.val_dataloader()))
    tokenizer = made.tokenizer
    assert batch["pixel_values"].shape == (4, 3, 16, 16)
    assert batch["mask"].sum(1).tolist() == [4, 6, 4, 5]
    assert (batch["input_ids"][:, 0] == tokenizer.bos_id).all()
    for ids, mask, text in zip(
        batch["input_ids"], batch["mask"], ["ab", "abcd", "ab", "xyz"], strict=True
    ):
        # The end is kept where the sentence is cut, and padding stands at the right.
        count = int(mask.sum())
        assert mask[:count].all() and ids[count - 1] == tokenizer.eos_id
        assert (ids[count:] == tokenizer.pad_id).all()
        assert tokenizer.decode(ids.tolist()) == text
    assert batch["picture_ids"].tolist() == [0, 1, 2, 1]
    assert batch["caption_ids"].tolist() == [0, 1, 0, 2]
    assert batch["caption"][1] == "abcd efgh" and batch["file"] == [row[0] for row in rows]
    assert "labels" not in batch and "labels" not in made.assets()
    arguments = made.model_arguments
    assert arguments == {"vocab_size": tokenizer.vocab_size, "image_size": (16, 16)}


def test_assets_make_the_same_batches(tmp_path):
    made = data(table(tmp_path, numbered()))
    made.setup("fit")
    again = data(tmp_path, tokenizer="bpe", image_size=(8, 8), max_tokens=5)
    again.use_assets(made.assets())
    ours, theirs = next(iter(made.val_dataloader())), next(iter(again.val_dataloader()))
    assert torch.equal(ours["pixel_values"], theirs["pixel_values"])
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    ids, mask = made.encode(["a red ball"])
    assert torch.equal(encode_texts(again.tokenizer, ["a red ball"], 32)[0], ids)
    assert mask.all()


TABLES = [
    ("captions.tsv", "file\tcaption", {}),
    ("captions.csv", "image,caption", {}),
    ("captions.csv", "filepath\ttitle", {}),
    ("list.csv", "path,text", {}),
    ("captions.tsv", "which\ten", {"image_column": "which", "caption_column": "en"}),
]


@pytest.mark.parametrize(("name", "header", "options"), TABLES)
def test_tables(tmp_path, name, header, options):
    made = data(table(tmp_path, numbered(), name, header), **options)
    made.setup("fit")
    assert len(made.pairs("train")) + len(made.pairs("val")) == 40
    assert len(data(tmp_path / name, **options).pairs("val")) == len(made.pairs("val"))


def test_json_lines_and_a_named_folder(tmp_path):
    rows = [{"file_name": file, "text": text} for file, text in numbered()]
    (tmp_path / "train").mkdir()
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "train/metadata.jsonl").write_text(lines)
    for file, _ in numbered():
        picture(tmp_path / "elsewhere" / file)
    made = data(tmp_path, images="elsewhere")
    made.setup("fit")
    assert len(made.pairs("train")) + len(made.pairs("val")) == 40
    with pytest.raises(UserError, match="data.images='no'"):
        data(tmp_path, images="no").setup()


def test_quotes_and_commas(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text('file,caption\r\na.png,"red, ""very"" red"\r\n')
    (tmp_path / "val.tsv").write_text('file\tcaption\na.png\t"red" it says\n')
    made = data(tmp_path)
    assert made.pairs("train").texts == ['red, "very" red']
    assert made.pairs("val").texts == ['"red" it says']


def test_held_out_rows_are_apart(tmp_path):
    rows = [(f"{i}-{tone}.png", f"{i} in tone {tone}") for i in range(60) for tone in "abc"]
    made = data(table(tmp_path, rows), split_column="caption", split_ignore="in tone .")
    made.setup("fit")
    train, val = files(made, "train"), files(made, "val")
    assert len(train) + len(val) == 180 and 3 <= len(val) <= 45
    assert not {f.split("-")[0] for f in train} & {f.split("-")[0] for f in val}
    assert files(made, "test") == val
    again = data(tmp_path, split_column="caption", split_ignore="in tone .", seed=5)
    assert files(again, "val") == val
    # Without it tones of one thing are on both sides.
    alone = data(tmp_path)
    train, val = files(alone, "train"), files(alone, "val")
    assert {f.split("-")[0] for f in train} & {f.split("-")[0] for f in val}


def test_held_out_of_the_training_file(tmp_path):
    table(tmp_path, numbered(), "train.tsv")
    table(tmp_path, numbered(3), "test.tsv")
    made = data(tmp_path)
    train, val = made.pairs("train"), made.pairs("val")
    assert len(train) + len(val) == 40 and not set(train.files) & set(val.files)
    assert len(made.pairs("test")) == 3


def test_coco_captions(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png"} for i in (4, 9)]
    sentences = [
        {"id": 1, "image_id": 9, "caption": " a cat "},
        {"id": 2, "image_id": 4, "caption": "a dog"},
        {"id": 3, "image_id": 9, "caption": "one cat"},
    ]
    (tmp_path / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        file = tmp_path / f"annotations/captions_{split}.json"
        file.write_text(json.dumps({"images": images, "annotations": sentences}))
        for image in images:
            picture(tmp_path / split / image["file_name"])
    made = data(tmp_path)
    made.setup("fit")
    pairs = made.pairs("val")
    assert pairs.texts == ["a cat", "a dog", "one cat"]
    assert pairs.files == ["9.png", "4.png", "9.png"]
    assert pairs.picture_ids[0] == pairs.picture_ids[2] != pairs.picture_ids[1]
    with pytest.raises(UserError, match="no files of the split data.test='test'"):
        made.pairs("test")
    sentences[1]["image_id"] = 5
    file.write_text(json.dumps({"images": images, "annotations": sentences}))
    with pytest.raises(UserError, match=r"annotations\[1\] is of image_id=5"):
        data(tmp_path).pairs("val")


def shard(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def png(colour):
    stream = io.BytesIO()
    Image.new("RGB", (10, 8), colour).save(stream, "PNG")
    return stream.getvalue()


def pairs_of(first, count=4):
    for i in range(first, first + count):
        text = f"number {i}"
        yield f"deep/{i:04d}.png", png((i, 0, 255 - i))
        if i % 2:
            yield f"deep/{i:04d}.json", json.dumps({"caption": text}).encode()
        else:
            yield f"deep/{i:04d}.txt", text.encode()


def test_shards(tmp_path):
    for i in range(3):
        shard(tmp_path / f"train-{i:02d}.tar", pairs_of(4 * i))
    shard(tmp_path / "val-00.tar", pairs_of(100))
    made = data(tmp_path)
    made.setup("fit")
    pairs = made.pairs("train")
    assert pairs.texts == [f"number {i}" for i in range(12)]
    assert pairs.image(7).getpixel((0, 0)) == (7, 0, 248)
    assert pairs.files[7] == "train-01.tar/deep/0007.png"
    part = data(tmp_path, train="train-{01..02}.tar", val="val-{00,00}.tar")
    assert part.pairs("train").texts == [f"number {i}" for i in range(4, 12)]
    assert len(part.pairs("val")) == 8
    # In another order each epoch, and going on in the middle of one.
    order = [text for batch in made.train_dataloader() for text in batch["caption"]]
    assert sorted(order) == sorted(pairs.texts) and order != pairs.texts
    made.load_state_dict({"epoch": 0, "batches": 1})
    assert [text for batch in made.train_dataloader() for text in batch["caption"]] == order[4:]


class At(LoaderProgress):
    """A process of several, in an epoch."""

    epoch, process = 0, (0, 1)

    def __init__(self, epoch, process):
        super().__init__()
        self.epoch, self.process = epoch, process


@pytest.mark.parametrize("epoch", [0, 1])
def test_processes_share_the_pictures_of_shards(tmp_path, epoch):
    """Each reads of all three, whose number does not divide by them, and no picture is read twice."""
    for split, i in itertools.product(("train", "val"), range(3)):
        shard(tmp_path / f"{split}-{i:02d}.tar", pairs_of(4 * i))
    found = {"train": [], "val": []}
    for rank in range(2):
        made = data(tmp_path, batch_size=2)
        made.progress = At(epoch, (rank, 2))
        for split, seen in found.items():
            seen.append([text for batch in made.loader(split) for text in batch["caption"]])
    for shares in found.values():
        assert [len(share) for share in shares] == [6, 6]
        assert sorted(shares[0] + shares[1]) == sorted(f"number {i}" for i in range(12))


def test_pictures_of_one_name_in_two_shards_are_two(tmp_path):
    for i in range(2):
        shard(tmp_path / f"val-{i}.tar", pairs_of(0, 2))
    pairs = data(tmp_path).pairs("val")
    assert pairs.picture_ids == [0, 1, 2, 3] and pairs.caption_ids == [0, 1, 0, 1]
    assert len(set(pairs.files)) == 4


def test_a_checkpoint_of_before_keeps_the_background_of_its_config():
    made = data(None, background=(0, 0, 0), examples=100)
    old = made.assets()
    del old["preprocess"]["background"]
    again = data(None, background=(0, 0, 0))
    again.use_assets(old)
    assert again.preprocess == made.preprocess


def test_bad_shards(tmp_path):
    with pytest.raises(UserError, match="train-03.tar does not exist"):
        data(tmp_path, train="train-{03..04}.tar").setup()
    shard(tmp_path / "train.tar", pairs_of(0), "w:gz")
    with pytest.raises(UserError, match="train.tar is not an uncompressed tar"):
        data(tmp_path).setup()
    shard(tmp_path / "train.tar", [("a.png", png((1, 1, 1)))])
    with pytest.raises(UserError, match="train.tar/a has an empty caption"):
        data(tmp_path, val="train.tar").setup()
    shard(tmp_path / "train.tar", [("a.png", png((1, 1, 1))), ("a.txt", b"\xff")])
    with pytest.raises(UserError, match="train.tar/a.txt is neither UTF-8 text"):
        data(tmp_path).setup()
    both = [("a.png", png((1, 1, 1))), ("a.webp", png((2, 2, 2))), ("a.txt", b"a")]
    shard(tmp_path / "train.tar", both)
    with pytest.raises(UserError, match="has a.png and a.webp: a key has one picture"):
        data(tmp_path, val="train.tar").setup()
    shard(tmp_path / "train.tar", [("a.txt", b"alone")])
    with pytest.raises(UserError, match="train.tar holds no picture"):
        data(tmp_path).setup()
    shard(tmp_path / "train.tar", [("a.png", b"nothing"), ("a.txt", b"a")])
    with pytest.raises(UserError, match="train.tar/a.png is not a picture"):
        data(tmp_path, val="train.tar").pairs("train").image(0)


def test_patterns():
    assert expand("a-{008..011}.tar") == ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]
    assert expand("{x,y}{1..2}") == ["x1", "x2", "y1", "y2"]
    assert expand("plain.tar") == ["plain.tar"]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("file\tcaption\na.png\tone\nb.png\t \n", {}, "line 3 has an empty caption"),
        ("file\tcaption\na.png\tone\nb.png\n", {}, "line 3 has 1 columns, .* names 2"),
        ("file\tcaption\n\ta\n", {}, "line 2 names no picture in the column 'file'"),
        ("file\tcaption\n", {}, "no line below the names"),
        ("picture\ten\nx\ty\n", {}, "columns picture, en: data.image_column must name"),
        ("file\ten\tde\na.png\tx\ty\n", {}, "columns file, en, de: data.caption_column must name"),
        ("file\ten\na.png\tx\n", {"caption_column": "fr"}, "no column caption_column='fr', only"),
        (
            "file\ttext\na.png\tx\n",
            {"split_column": "who"},
            "no column split_column='who', only: file, text",
        ),
        ("file\ttext\na.png\tx\n", {}, "leaves nothing for (train|val)"),
    ],
)
def test_bad_tables_are_named_in_one_sentence(tmp_path, content, options, words):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "captions.tsv").write_text(content)
    with pytest.raises(UserError, match=words):
        made = data(tmp_path, **options)
        made.pairs("train")
        made.pairs("val")


def test_missing_pictures(tmp_path, caplog):
    table(tmp_path, numbered())
    gone = files(data(tmp_path), "train")[:3]
    for file in gone:
        (tmp_path / "images" / file).unlink()
    with pytest.raises(UserError, match=r"png does not exist \(3 pictures .* data.on_bad=skip"):
        data(tmp_path).setup("fit")
    made = data(tmp_path, on_bad="skip")
    made.setup("fit")
    assert len(made.pairs("train")) + len(made.pairs("val")) == 37
    assert "3 of" in caplog.text and gone[0] in caplog.text


def test_evaluation_takes_no_other_pair_in_place_of_a_damaged_picture(tmp_path):
    rows = numbered(4)
    table(tmp_path, rows, "train.tsv")
    table(tmp_path, rows, "val.tsv")
    file = tmp_path / "images/1.png"  # a header that can be read, and then nothing
    Image.effect_noise((40, 40), 90).convert("RGB").save(file)
    file.write_bytes(file.read_bytes()[:-500])
    made = data(tmp_path, on_bad="skip")
    made.setup("fit")
    assert next(iter(made.val_dataloader()))["file"] == ["0.png", "2.png", "3.png"]
    assert len(next(iter(made.train_dataloader()))["file"]) == 4


def test_empty_captions_can_be_skipped(tmp_path, caplog):
    rows = [*numbered(), ("x.png", "")]
    made = data(table(tmp_path, rows), on_bad="skip")
    assert len(made.pairs("train")) + len(made.pairs("val")) == 40
    assert "line 42 has an empty caption" in caplog.text


def test_bad_places_and_options(tmp_path):
    with pytest.raises(UserError, match="is neither a folder nor a table"):
        data(tmp_path / "no").setup()
    with pytest.raises(UserError, match="neither a table of captions"):
        data(tmp_path).setup()
    table(tmp_path, numbered(), "one.tsv")
    with pytest.raises(UserError, match="captoins.tsv does not exist"):
        data(tmp_path / "captoins.tsv").setup()
    with pytest.raises(UserError, match="no files of data.val='valid'"):
        data(tmp_path, val="valid").setup()
    table(tmp_path, numbered(), "two.tsv")
    with pytest.raises(UserError, match=r"several tables \(one.tsv, two.tsv\)"):
        data(tmp_path).setup()
    (tmp_path / "train.jsonl").write_text('{"file": "a"}\n{"file"\n')
    with pytest.raises(UserError, match="train.jsonl line 2 is not JSON"):
        data(tmp_path).setup()
    for options, words in (
        ({"split_ignore": "("}, "data.split_ignore='\\('"),
        ({"val_fraction": 1.0}, "data.val_fraction"),
        ({"crop": 0.0}, "data.crop"),
        ({"max_tokens": 2}, "data.max_tokens=2"),
        ({"background": (0, 0, 300)}, r"background=\[0, 0, 300\] must be a colour"),
    ):
        with pytest.raises(UserError, match=words):
            data(tmp_path, **options)


def test_background_of_transparent_pictures(tmp_path):
    table(tmp_path, numbered(20))
    for file, _ in numbered(20):
        picture(tmp_path / "images" / file, "RGBA", (255, 0, 0, 0))
    made = data(tmp_path, background=(10, 200, 30), crop=1.0)
    batch = next(iter(made.train_dataloader()))
    assert made.preprocess.restore(batch["pixel_values"])[0, :, 0, 0].tolist() == [10, 200, 30]


def test_augmentation_is_for_training_alone():
    made = data(None, examples=8, crop=0.5, flip=True, colour=0.5)
    train, val = made.train_dataloader().dataset, made.val_dataloader().dataset
    plain = made.preprocess(made.pairs("train").image(3))
    assert train.pairs is made.pairs("train")
    picks = [next(iter(made.train_dataloader().batch_sampler))[0]._replace(index=3)]
    once, again = (train.__getitems__(picks)["pixel_values"] for _ in range(2))
    assert torch.equal(once, again) and not torch.equal(once[0], plain)
    assert torch.equal(
        val.__getitems__(picks)["pixel_values"][0], made.preprocess(made.pairs("val").image(3))
    )


def test_shapes():
    made = data(None, examples=50)
    made.setup("fit")
    assert made.assets()["labels"] == list(shapes.CLASSES)
    batch = next(iter(made.val_dataloader()))
    assert batch["labels"].tolist() == made.pairs("val").labels[:4]
    for split in ("train", "val"):
        tenths = {zlib.crc32(text.encode()) % 10 for text in made.pairs(split).texts}
        assert tenths <= set(shapes.SPLITS[split])


def test_a_table_of_the_test_alone_is_not_trained_on(tmp_path):
    (tmp_path / "test.csv").write_text("image,caption\na.png,a red circle\n")
    with pytest.raises(UserError, match="neither a table of captions"):
        ImageTextData(str(tmp_path)).setup("fit")
