"""Tables of classified texts, their batches, and each mistake in them in one sentence."""

from __future__ import annotations

import json
import zlib

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from tasks.data import shapes
from tasks.data.labelled_text_data import encode_texts
from tasks.data.text_classification import TextClassificationData
from tasks.data.tokenizers import Tokenizer, train_tokenizer
from tasks.errors import UserError

ROWS = [("a fine film", "good"), ("dull", "bad"), ('so, so "dull"', "bad"), ("fine", "good")]


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def lines(rows, between="\t"):
    return "".join(f"{text}{between}{label}\n" for text, label in rows)


def data(root, **options):
    options = {"tokenizer": "char", "batch_size": 2} | options
    return TextClassificationData(None if root is None else str(root), **options)


@pytest.fixture
def root(tmp_path):
    write(tmp_path, train_tsv=lines(ROWS), val_tsv=lines(ROWS[:3]), test_tsv=lines(ROWS[2:]))
    return tmp_path


def test_batch(root):
    made = data(root, max_tokens=8)
    batch = next(iter(made.val_dataloader()))
    # The two shortest of the three, in the order of their lengths.
    assert batch["text"] == ["dull", "a fine film"] and batch["line"] == [1, 0]
    assert batch["labels"].tolist() == [0, 1] and made.classes == ["bad", "good"]
    tokenizer = made.tokenizer
    assert batch["mask"].sum(1).tolist() == [6, 8]
    for ids, mask, text in zip(batch["input_ids"], batch["mask"], ["dull", "a fine"], strict=True):
        # The mark of the end is kept where the text is cut, and padding stands at the right.
        count = int(mask.sum())
        assert ids[0] == tokenizer.bos_id and ids[count - 1] == tokenizer.eos_id
        assert mask[:count].all() and (ids[count:] == tokenizer.pad_id).all()
        assert tokenizer.decode(ids.tolist()) == text
    assert made.model_arguments == {"vocab_size": tokenizer.vocab_size, "num_classes": 2}


def test_every_text_is_seen_once_an_epoch_in_batches_of_like_length(tmp_path):
    rows = [("x" * (1 + i % 50), str(i % 2)) for i in range(103)]
    write(tmp_path, train_tsv=lines(rows), val_tsv=lines(rows))
    made = data(tmp_path, batch_size=10, max_tokens=40)
    batches = list(made.train_dataloader())
    assert sorted(len(batch["text"]) for batch in batches) == [3, *[10] * 10]
    assert sorted(line for batch in batches for line in batch["line"]) == list(range(103))
    assert max(batch["input_ids"].shape[1] for batch in batches) == 40
    padding = sum(int((~batch["mask"]).sum()) for batch in batches)
    assert padding < 0.15 * sum(batch["mask"].numel() for batch in batches)
    assert [b["line"] for b in made.train_dataloader()] == [b["line"] for b in batches]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char"])
def test_tokenizers_learn_from_the_training_split_alone(tmp_path, kind):
    write(tmp_path, train_tsv=lines(ROWS * 9), val_tsv="zzz zzz\tgood\n" * 9)
    made = data(tmp_path, tokenizer=kind, vocab_size=270 if kind == "bpe" else 30)
    ids = next(iter(made.val_dataloader()))["input_ids"][0]
    assert ids[0] == 1 and ids[-1] == 2
    merged = {
        token for token in made.tokenizer.inner.get_vocab() if len(token) > 1 and "z" in token
    }
    assert not merged


TABLES = {
    "train.tsv": lines([("text", "label"), *ROWS]),
    "train.csv": 'label,id,sentence\ngood,1,a fine film\nbad,2,dull\nbad,3,"so, so ""dull"""\ngood,4,fine\n',
    "train.jsonl": "\n".join(json.dumps({"sentence": t, "label": c}) for t, c in ROWS),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path, name):
    (tmp_path / name).write_text(TABLES[name])
    write(tmp_path, dev_tsv=lines(ROWS))
    made = data(tmp_path)
    made.setup("fit")  # with dev in the place of val
    assert [row[:2] for row in made.rows("train")] == ROWS
    assert made.labels("train") == made.labels("val") == [1, 0, 0, 1]


def test_named_columns(tmp_path):
    text = "who\tsaid\tmood\nann\thello\tglad\nben\tno\tsad\n"
    write(tmp_path, train_tsv=text, val_tsv=text)
    made = data(tmp_path, text_column="said", label_column="mood")
    assert [row[:2] for row in made.rows("train")] == [("hello", "glad"), ("no", "sad")]
    with pytest.raises(UserError, match="columns who, said, mood: data.text_column must name"):
        data(tmp_path).setup()
    with pytest.raises(UserError, match="no column label_column='moot', only: who, said, mood"):
        data(tmp_path, text_column="said", label_column="moot").setup()


def test_numbers_are_sorted_by_their_values(tmp_path):
    write(tmp_path, train_tsv=lines([("a", "10"), ("b", "9"), ("c", "-1")]), val_tsv="a\t9")
    assert data(tmp_path).classes == ["-1", "9", "10"]
    write(tmp_path, train_tsv=lines([("a", "10"), ("b", "9"), ("c", "none")]))
    assert data(tmp_path).classes == ["10", "9", "none"]


# --- Tables without splits ---


def test_one_table_is_divided_by_its_classes(tmp_path):
    rows = [(f"text {i}", "rare" if i % 10 == 0 else "usual") for i in range(200)]
    write(tmp_path, all_csv="text,label\n" + lines(rows, ","))
    options = {"val_fraction": 0.2, "test_fraction": 0.1}
    made, file = data(tmp_path, **options), data(tmp_path / "all.csv", **options)
    seen = {split: {row.text for row in made.rows(split)} for split in ("train", "val", "test")}
    assert [len(part) for part in seen.values()] == [140, 40, 20]
    assert sum(row.label == "rare" for row in made.rows("val")) == 4
    assert len(set().union(*seen.values())) == 200
    assert file.rows("test") == made.rows("test")
    other = data(tmp_path, split_seed=1, **options).rows("test")
    assert {row.text for row in other} != seen["test"]


def test_what_belongs_together_is_held_out_together(tmp_path):
    # Each author has four texts; each text stands twice.
    rows = [(f"text {i // 2}", str(i % 3), f"author {i // 8}") for i in range(240)]
    table = "".join(f"{text}\t{label}\t{author}\n" for text, label, author in rows)
    write(tmp_path, all_tsv="text\tlabel\tauthor\n" + table)
    for options, key in (({}, "text"), ({"group_column": "author"}, "group")):
        made = data(tmp_path, **options)
        homes = [{getattr(r, key) for r in made.rows(s)} for s in ("train", "val", "test")]
        assert not homes[0] & homes[1] and not homes[0] & homes[2] and not homes[1] & homes[2]
    with pytest.raises(
        UserError, match="no column group_column='writer', only: text, label, author"
    ):
        data(tmp_path, group_column="writer").rows("val")


def test_validation_comes_from_training_where_it_has_no_file(tmp_path):
    rows = [(f"text {i}", str(i % 2)) for i in range(40)]
    write(tmp_path, train_tsv=lines(rows), test_tsv=lines(rows[:3]))
    made = data(tmp_path)
    assert [len(made.rows(split)) for split in ("train", "val", "test")] == [36, 4, 3]


# --- What a checkpoint brings ---


def test_assets_make_the_same_batches(root):
    made = data(root, max_tokens=6)
    made.setup("fit")
    assets = json.loads(json.dumps(made.assets()))
    assert assets["labels"] == ["bad", "good"]
    again = data(root, tokenizer="bpe", max_tokens=100)
    (root / "train.tsv").unlink()  # not needed any more
    again.use_assets(assets)
    ours, theirs = next(iter(made.test_dataloader())), next(iter(again.test_dataloader()))
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["labels"], theirs["labels"])
    # Nor does the order of the data's own classes matter.
    again.use_assets({**assets, "labels": ["good", "bad", "so-so"]})
    assert again.labels("val") == [0, 1, 1] and again.model_arguments["num_classes"] == 3
    again.use_assets({**assets, "labels": ["positive", "negative"]})
    with pytest.raises(UserError, match=r"line 1 has the label 'good', .* 2 classes \(positive, "):
        again.setup("validate")


def published():
    """A tokenizer as BERT's come: special tokens of its own, padding and cutting switched on."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "fine", "film", "dull"]
    inner = tokenizers.Tokenizer(models.WordLevel(dict(zip(words, range(8), strict=True)), "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    inner.enable_padding(length=128)
    inner.enable_truncation(3)
    return inner.to_str()


def test_a_published_tokenizer_adds_its_own_tokens(root):
    made = data(root)
    made.use_assets({"tokenizers": {"text": published()}, "labels": None})
    assert made.model_arguments == {"vocab_size": 8, "num_classes": 2}
    assert made.classes == ["bad", "good"]  # of the data, for a fresh head
    batch = next(iter(made.val_dataloader()))
    assert batch["input_ids"].tolist() == [[2, 7, 3, 0, 0], [2, 4, 5, 6, 3]]
    assert batch["mask"].int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    ids, mask = encode_texts(made.tokenizer, ["a fine film", "dull"], 4)
    assert ids.tolist() == [[2, 4, 5, 3], [2, 7, 3, 0]] and mask.sum() == 7


def test_ends_are_added_once():
    tokenizer = train_tokenizer("char", ["ab"])
    for _ in range(2):
        assert encode_texts(tokenizer, ["ab"], 9)[0].tolist() == [[1, 4, 5, 2]]
    again = Tokenizer.from_json(tokenizer.to_json())
    assert encode_texts(again, ["ab"], 9)[0].tolist() == [[1, 4, 5, 2]]


# --- The built-in world ---


def test_shapes():
    made = data(None, examples=300)
    made.setup("fit")
    assert made.classes == sorted(shapes.SHAPES)
    rows = [*made.rows("train"), *made.rows("val")]
    seconds = 0
    for row in rows:
        said = [name for name in row.text.split() if name in shapes.SHAPES]
        second = "right" in row.text or "below" in row.text
        assert row.label == said[second]
        seconds += second
    assert 0.4 < seconds / len(rows) < 0.6
    for split in ("train", "val"):
        tenths = {zlib.crc32(row.text.encode()) % 10 for row in made.rows(split)}
        assert tenths <= set(shapes.SPLITS[split])


# --- Mistakes ---


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "has no train.tsv, .csv or .jsonl for data.train='train', but no table at all"),
        ({"train_tsv": ""}, "train.tsv is empty"),
        ({"train_csv": "text,label\n"}, "train.csv has no line below the names"),
        ({"train_tsv": b"a\t1\nb\xff\t0\n"}, "train.tsv is not UTF-8: see the byte at offset 5"),
        ({"train_tsv": "a\t1\nb\n"}, "train.tsv line 2 needs a sentence, a tab and its label"),
        ({"train_tsv": "a\t1\n\nb\t0\n"}, "train.tsv line 2 is empty"),
        ({"train_tsv": "a\t1\n \t0\n"}, "train.tsv line 2 has an empty text"),
        ({"train_tsv": "sentence\tlabel\na\t \n"}, "train.tsv line 2 has an empty label"),
        ({"train_csv": "text,label\na,1\nb\n"}, "train.csv line 3 has 1 columns"),
        ({"train_jsonl": '{"text": "a", "label": 1}\n{"text": "b"}'}, "line 2 has an empty label"),
        ({"train_jsonl": '{"text": "a"\n'}, "train.jsonl line 1 is not JSON"),
        ({"train_tsv": "a\t1\nb\t1\n"}, "every text has the label '1' .* two classes at least"),
        (
            {"train_tsv": "a\t1\nb\t0\n"},
            "val_fraction=0.1, .* of 2 examples leaves none for val",
        ),
        (
            {"a_tsv": "a\t1", "b_tsv": "b\t1"},
            "no train.tsv, .csv or .jsonl for .*, but a.tsv, b.tsv",
        ),
        (
            {"train_tsv": "a\tgood\nb\tbad\n", "val_tsv": "a\tgodo\n"},
            r"val.tsv line 1 has the label 'godo', .* 2 classes \(bad, good\). Did you mean 'good'",
        ),
    ],
)
def test_bad_files_are_named_in_one_sentence(tmp_path, files, words):
    write(tmp_path, **files)
    with pytest.raises(UserError, match=words) as caught:
        data(tmp_path).setup("fit")
    assert "\n" not in str(caught.value)


def test_a_test_split_without_labels(root):
    write(root, test_tsv="index\tsentence\n0\tdull\n")
    with pytest.raises(UserError, match="has no labels, only: index, sentence; .* family predict"):
        data(root).test_dataloader()
    (batch,) = data(root).predict_dataloader()
    assert batch["text"] == ["dull"] and batch["line"] == [0] and "labels" not in batch
    (root / "test.tsv").unlink()
    with pytest.raises(UserError, match="data.test='test', but train.tsv, val.tsv"):
        data(root).test_dataloader()


def test_bad_places_and_options(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        data(tmp_path / "nowhere").setup()
    write(tmp_path, a_txt="x")
    with pytest.raises(UserError, match="a.txt is neither a folder nor a table"):
        data(tmp_path / "a.txt").setup()
    for name, value in {
        "batch_size": 0,
        "examples": 0,
        "max_tokens": 2,
        "seed": -1,
        "num_workers": -1,
        "val_fraction": 1.1,
        "test_fraction": -0.1,
    }.items():
        with pytest.raises(UserError, match=rf"data\.{name}\b"):
            data(None, **{name: value})
