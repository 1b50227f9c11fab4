"""Pairs of texts: their tables, their batches, and each mistake in them in one sentence."""

from __future__ import annotations

import json

import pytest

from tasks.data.sentence_pair_files import SentencePair, groups_of
from tasks.data.sentence_pairs import SentencePairsData
from tasks.errors import UserError

STSB = 'A plane is taking off.,"An air plane, ""taking off"".",5.000\n'
STSB += "A man eats.,Somebody has lunch.,3.5\nA man eats.,A red circle,0.0\n"


def data(root, **options):
    options = {"tokenizer": "char", "batch_size": 2} | options
    return SentencePairsData(None if root is None else str(root), **options)


@pytest.fixture
def root(tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / f"en-{split}.csv").write_text(STSB)
    return tmp_path


NAMED = {"train": "en-train", "val": "en-dev", "test": "en-test"}


@pytest.mark.parametrize(
    "columns",
    [{}, {"label_column": 2}, {"text_column": 0, "pair_column": 1, "label_column": -1}],
)
def test_pairs_with_a_number(root, columns):
    made = data(root, **NAMED, **columns)
    rows = made.rows("val")
    assert rows[0].pair == 'An air plane, "taking off".'
    assert [(row.label, row.line) for row in rows] == [(5, 1), (3.5, 2), (0, 3)]
    assert made.labels("val") == [1, 0.7, 0] and made.has_numbers("val")
    batches = list(made.val_dataloader())
    by_line = {
        line: (label, ids)
        for b in batches
        for line, label, ids in zip(
            b["line"], b["labels"].tolist(), b["text_ids"].tolist(), strict=True
        )
    }
    assert by_line[2][0] == pytest.approx(0.7)
    assert by_line[2][1][0] == by_line[3][1][0]  # the same text
    assert len({i for _, ids in by_line.values() for i in ids}) == 5
    one = batches[0]
    for ids, mask, texts in (("input_ids", "mask", "text"), ("pair_ids", "pair_mask", "pair")):
        for row, seen, text in zip(one[ids], one[mask], one[texts], strict=True):
            assert made.tokenizer.decode(row[seen].tolist()) == text
    assert made.assets()["label_range"] == [0, 5]


def test_the_range_of_numbers(root):
    (root / "en-dev.csv").write_text("a,b,7\n")
    with pytest.raises(UserError, match=r"en-dev.csv line 1 has the label 7, .* between 0 and 5"):
        data(root, **NAMED).setup("validate")
    wide = data(root, **NAMED, label_range=(0, 10))
    assert wide.labels("val") == [0.7] and wide.labels("train")[0] == 0.5
    wide.use_assets({**wide.assets(), "label_range": [0, 5]})
    assert wide.labels("val") == [0.7]  # what these files mean
    again = data(root, **NAMED)
    again.use_assets({**wide.assets(), "label_range": [0, 10]})
    assert again.labels("val") == [0.7]
    (root / "en-train.csv").write_text("a,b,2\nc,d,2.0\n")
    with pytest.raises(UserError, match="every pair has the label 2"):
        data(root, **NAMED).setup("fit")


TABLES = {
    "a.tsv": "anchor\tpositive\tnegative\na b\tc\td\n",
    "b.tsv": "a b\tc\td\n",
    "c.csv": "id;sentence1;sentence2;negative\n1;a b;c;d\n",
    "d.jsonl": json.dumps({"query": "a b", "document": "c", "negative": "d"}) + "\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_pairs_without(tmp_path, name):
    (tmp_path / name).write_text(TABLES[name])
    row = data(tmp_path).read(tmp_path / name)[0]
    assert (row.text, row.pair, row.label, row.negative) == ("a b", "c", None, "d")
    (tmp_path / "e.tsv").write_text("x\ty\n")
    assert data(tmp_path).read(tmp_path / "e.tsv")[0].texts == ("x", "y")


def test_a_batch_with_negatives(tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"{split}.tsv").write_text("a b\tc\td\nb\tc\tee\n")
    made = data(tmp_path)
    batch = next(iter(made.train_dataloader()))
    order = batch["line"]
    assert "labels" not in batch and batch["text_ids"].shape == (2, 3)
    assert batch["text_ids"][0, 1] == batch["text_ids"][1, 1]
    negatives = [made.tokenizer.decode(row.tolist()) for row in batch["negative_ids"]]
    assert [negatives[order.index(1)], negatives[order.index(2)]] == ["d", "ee"]
    assert made.assets()["label_range"] is None
    texts = {text for row in made.rows("train") for text in row.texts}
    assert set(made.written()) == texts


def test_pairs_that_share_a_text_are_held_out_together(tmp_path):
    pairs = [(f"a{i // 3}", f"b{i}") for i in range(60)]
    pairs += [(f"b{i}", f"c{i}") for i in range(0, 60, 2)]  # what was a second text is a first
    (tmp_path / "all.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in pairs))
    made = data(tmp_path, val_fraction=0.2, test_fraction=0.2)
    seen = [
        {text for row in made.rows(split) for text in row.texts}
        for split in ("train", "val", "test")
    ]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert [len(made.rows(s)) for s in ("val", "test")] == pytest.approx([18, 18], abs=5)
    rows = [SentencePair(a, b, None, "", "", 0) for a, b in pairs]
    there = dict(zip(pairs, groups_of(rows), strict=True))
    back = dict(zip(pairs[::-1], groups_of(rows[::-1]), strict=True))
    assert there == back and len(set(there.values())) == 20


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("a,b,1\nc, ,2\n", {}, "train.csv line 2 has an empty column 1"),
        ("sentence1,sentence2\n,x\n", {}, "train.csv line 2 has an empty sentence1"),
        ("sentence1,sentence2,score\na,b,c\n", {}, "line 2 has the label 'c', which is no number"),
        ("a,b,1\nc,d,nan\n", {}, "line 2 has the label 'nan', which is no number"),
        ("a,b,1\nc,d\n", {}, "line 2 has 2 columns, but line 1 has 3"),
        ("a,b,c,d\n", {}, "has 4 columns, and its first line names none of them as usual"),
        ("a\n", {}, "has 1 columns"),
        ("a,b,1\n", {"label_column": 3}, "data.label_column=3: "),
        ("a,b\n", {"text_column": 0, "pair_column": "b"}, "data.pair_column='b' names one"),
        ("x,y\na,b\n", {"text_column": "x", "pair_column": "z"}, "pair_column='z'"),
        ("sentence1,z\na,b\n", {}, "data.pair_column must name the one to read"),
    ],
)
def test_mistakes_in_one_sentence(tmp_path, content, options, said):
    (tmp_path / "train.csv").write_text(content)
    (tmp_path / "val.csv").write_text("a,b,1\nb,c,0\n")
    with pytest.raises(UserError) as raised:
        data(tmp_path, **options).setup("fit")
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_options_in_one_sentence():
    with pytest.raises(UserError, match=r"data.label_range=\[5, 0\] must be two numbers"):
        data(None, label_range=(5, 0))


def test_shapes():
    made = data(None, examples=300)
    assert len(made.rows("val")) == 100 and not made.has_numbers("train")
    english = [{row.text for row in made.rows(split)} for split in ("train", "val")]
    assert not english[0] & english[1] and not english[0] & {r.pair for r in made.rows("train")}


def test_a_score_is_no_sentence(tmp_path):
    (tmp_path / "all.csv").write_text("text_a,text_b,score\na man runs,a man is running,0.9\n")
    with pytest.raises(UserError, match="text_column"):
        SentencePairsData(str(tmp_path / "all.csv")).setup("fit")
