"""Tables of pairs of texts, with classes or numbers: what is read, what a batch is, what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from tasks.data import shapes
from tasks.data.shape_pairs import COUNTED, QUESTIONS, asked_shapes
from tasks.data.text_classification import TextClassificationData
from tasks.data.text_files import read_tsv
from tasks.data.text_regression import TextRegressionData
from tasks.errors import UserError

PAIRS = [("a man", "a dog", "no"), ("it, too", "a very long text", "yes"), ("b", "c", "no")]


def table(rows, between=","):
    return "".join(between.join(f'"{field}"' for field in row) + "\n" for row in rows)


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text(table([("sentence1", "sentence2", "label"), *PAIRS]))
    return tmp_path


def made(root, kind=TextClassificationData, **options):
    given = {"tokenizer": "char", "batch_size": 3, "max_tokens": 12} | options
    return kind(None if root is None else str(root), **given)


def test_batch(root):
    data = made(root)
    (batch,) = data.loader("val")
    # As many tokens each: the order of the lengths as they are cut.
    order = [2, 0, 1]
    assert batch["line"] == order and batch["text"] == [PAIRS[i][0] for i in order]
    assert batch["pair"] == [PAIRS[i][1] for i in order]
    assert batch["labels"].tolist() == [0, 0, 1] and data.classes == ["no", "yes"]
    ids, types, mask = batch["input_ids"], batch["token_types"], batch["mask"]
    assert mask.sum(1).tolist() == [5, 12, 12] and types.shape == ids.shape
    assert data.tokenizer.decode(ids[1].tolist()) == "a maa dog"  # the longer one loses its end
    assert (ids == 2).sum(1).tolist() == [2, 2, 2] and types.sum(1).tolist() == [2, 6, 6]
    assert data.assets()["pairs"] is True


NAMED = {
    "premise,hypothesis,label": {},
    "question,answer,label": {},
    "sentence1,sentence2,score": {"label_column": "score"},
    "a,b,label": {"text_column": "a", "pair_column": "b"},
    "question,sentence,label": {"text_column": "question", "pair_column": "sentence"},
    "sentence,other,label": {"pair_column": "other"},
}


@pytest.mark.parametrize("header", NAMED)
def test_columns_by_name(tmp_path, header):
    (tmp_path / "train.csv").write_text(header + "\n" + table(PAIRS))
    rows = made(tmp_path, val="train", **NAMED[header]).rows("train")
    assert [(row.text, row.pair, row.label) for row in rows] == PAIRS


def test_one_side_alone_and_single_texts_stay_single(root, tmp_path):
    rows = made(root, text_column="sentence2").rows("train")
    assert [(row.text, row.pair) for row in rows] == [(pair[1], None) for pair in PAIRS]
    (tmp_path / "train.csv").write_text("text,question,answer,label\n" + table([("t", *PAIRS[0])]))
    assert made(tmp_path).read(tmp_path / "train.csv")[0].pair is None


def test_columns_by_number(tmp_path):
    rows = [("3.5", *PAIRS[0][:2]), ("1", *PAIRS[1][:2])]
    numbers = {"text_column": 1, "pair_column": -1, "label_column": 0}
    for name, content in {
        "en-train.csv": table(rows),
        "en-dev.tsv": "3.5\ta man\ta dog\n1\tit, too\ta very long text\n",
        "en-test.csv": "0,1,2\n" + table(rows),  # as pandas names them
    }.items():
        (tmp_path / name).write_text(content)
    splits = {"train": "en-train", "val": "en-dev", "test": "en-test"}
    data = made(tmp_path, TextRegressionData, **numbers, **splits)
    found = {
        split: [(row.label, row.text, row.pair) for row in data.rows(split)] for split in splits
    }
    assert found == dict.fromkeys(splits, rows)
    assert data.rows("val")[1].where.endswith("en-dev.tsv line 2")
    assert data.rows("test")[1].where.endswith("en-test.csv line 3")
    usual = made(tmp_path, train="en-train", val="en-dev", pair_column=1)
    assert usual.rows("train")[0][:2] == ("3.5", "a dog")  # the first and the last column
    (tmp_path / "bare.csv").write_text("a,b\nc,d\n")
    unlabelled = made(tmp_path, test="bare", pair_column=1, text_column=0)
    unlabelled.use_assets({**data.assets(), "labels": ["no", "yes"]})
    (batch,) = unlabelled.predict_dataloader()
    assert batch["pair"] == ["b", "d"] and "labels" not in batch


def test_numbers(root):
    lines = table([("sentence1", "sentence2", "score"), ("a", "b", "4.5"), ("a", "c", "-1e1")])
    for split in ("train", "val"):
        (root / f"{split}.csv").write_text(lines)
    data = made(root, TextRegressionData)
    data.setup("fit")
    (batch,) = data.loader("val")
    assert batch["labels"].dtype == torch.float32 and batch["labels"].tolist() == [4.5, -10]
    assert data.mean() == -2.75 and data.model_arguments["num_classes"] == 1
    assert not hasattr(data, "classes") and "labels" not in data.assets()
    (root / "train.csv").write_text("text,label\na,1\nb,2\n")  # single texts have numbers too
    single = made(root, TextRegressionData, val="train")
    assert "token_types" not in next(iter(single.loader("train")))


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("a,b\nx,y\n", {"text_column": "a", "pair_column": "c"}, "no column pair_column='c', only: a, b"),
        ("a,b,c\n", {"pair_column": 3}, r"data.pair_column=3: .*train.csv line 1 has 3 columns"),
        ("a,b,c\n", {"pair_column": 1, "label_column": "c"}, "pair_column=1 is a column .*='c' names"),
        ("a,b,c\nd,e\n", {"pair_column": 1}, "line 2 has 2 columns, but line 1 has 3"),
        ("a,b,1\nd, ,2\n", {"pair_column": 1}, r"train.csv line 2 has an empty column 1\."),
        ("premise,hypothesis,label\na,b,x\n,c,y\n", {}, "train.csv line 3 has an empty premise"),
        ("sentence1,sentence2,label\na,,x\n", {}, "train.csv line 2 has an empty sentence2"),
        ("sentence1,label\na,x\n", {}, "data.text_column must name"),
        ("sentence1,sentence2,label\na,b,x\nc,d,y\n", {"max_tokens": 4}, "max_tokens=4 has no room"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path, content, options, words):
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        data = made(tmp_path, val="train", **options)
        data.setup("fit")
        data.loader("train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", ["high", "nan", "inf", "3,5"])
def test_a_label_that_is_no_number(tmp_path, label):
    (tmp_path / "train.csv").write_text(f'text,label\na,1\nb,"{label}"\n')
    with pytest.raises(UserError, match=f"train.csv line 3 has the label '{label}', which is no"):
        made(tmp_path, TextRegressionData, val="train").setup("fit")


def test_pairs_are_not_mixed_with_single_texts(root):
    (root / "val.csv").write_text("sentence1,label\na,no\n")
    with pytest.raises(UserError, match="data.text_column must name"):
        made(root).setup("fit")
    (root / "val.csv").write_text("text,label\na,no\n")
    with pytest.raises(UserError, match="val.csv line 2 has one text, but pairs are read"):
        made(root).setup("fit")
    assets = made(root).assets()
    again = made(root, val="train")
    again.use_assets(json.loads(json.dumps({**assets, "pairs": False})))
    with pytest.raises(UserError, match="train.csv line 2 is a pair of texts, but single ones are"):
        again.loader("val")
    old = {name: value for name, value in assets.items() if name != "pairs"}
    (root / "train.csv").unlink()  # a checkpoint of before needs no training split either
    again.use_assets(old)
    assert "pair" in next(iter(again.loader("test")))


def test_the_same_first_text_is_held_out_together(tmp_path):
    rows = [(f"text {i // 3}", f"other {i}", str(i % 2)) for i in range(90)]
    (tmp_path / "all.csv").write_text("premise,hypothesis,label\n" + table(rows))
    data = made(tmp_path)
    homes = [{row.text for row in data.rows(split)} for split in ("train", "val", "test")]
    assert not homes[0] & homes[1] and not homes[0] & homes[2] and not homes[1] & homes[2]


# --- The built-in world ---


NUMBERS = {words: i for i, (words, _) in shapes.NUMBERS.items()}


def halves(row):
    """What stands at the left or on top, what does not, and whether the sentence says them in this order."""
    how, words = next(
        (how, words) for how, (words, _) in shapes.RELATIONS.items() if f" {words} " in row.text
    )
    one, other = row.text.split(f" {words} ")
    one = one.removesuffix(" is").removesuffix(" are").split()
    return (one, other.split(), True) if how in ("left", "above") else (other.split(), one, False)


def test_questions_about_sentences():
    rows, orders = asked_shapes(400, 0, "train"), []
    for row in rows:
        first, second, in_order = halves(row)
        place = {"size": 1, "colour": 2, "shape": 3}
        asked = next(place[name] for name, question in QUESTIONS.items() if question == row.pair)
        assert first[asked].startswith(row.label) and not second[asked].startswith(row.label)
        orders.append(in_order)
    assert 0.4 < sum(orders) / 400 < 0.6 and {row.pair for row in rows} == {*QUESTIONS.values()}
    assert not {row.text for row in rows} & {row.text for row in asked_shapes(100, 0, "val")}


def test_questions_about_numbers():
    rows = asked_shapes(400, 0, "val", numbers=True)
    for row in rows:
        here, there = (NUMBERS[thing[0]] for thing in halves(row)[:2])
        answers = {"first": here, "more": here - there}
        assert int(row.label) == next(
            answers[name] for name, question in COUNTED.items() if question == row.pair
        )
    assert {row.pair for row in rows} == {*COUNTED.values()}


def test_a_header_says_which_columns_are_read(tmp_path):
    file = tmp_path / "all.tsv"
    file.write_text("fr\tid\ten\nbonjour\t\thello\n")
    assert read_tsv(file, "fr", "en") == [("bonjour", "hello")]
    for row in ("1\tbonjour", "1\tbonjour\t"):
        file.write_text(f"id\tfr\ten\n{row}\n")
        with pytest.raises(UserError, match="line 2 needs a sentence"):
            read_tsv(file, "fr", "en")
