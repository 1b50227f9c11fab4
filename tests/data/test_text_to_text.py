"""Texts and what is to be made of them: read, marked, mixed, and one sentence for each mistake."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch

from family.losses.language_model import IGNORE
from tasks.data.batching import LoaderProgress
from tasks.data.mixing import MixedBatches, drawn, shares
from tasks.data.paired_texts import BUILT_IN, Columns, paired_shapes, read_paired
from tasks.data.text_to_text import TextTask, TextToTextData
from tasks.data.tokenizers import train_tokenizer
from tasks.errors import UserError

ROWS = [("a red circle", "red"), ("a blue square", "blue"), ("one star", "none")]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(path, rows=ROWS, names=("source", "target")):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    else:
        by = "\t" if path.suffix == ".tsv" else ","
        lines = [by.join(row) for row in (names, *rows)]
    path.write_text("".join(f"{line}\n" for line in lines))


def made(root="data", **options):
    return TextToTextData(root, **{"tokenizer": "char", **options})


def splits(folder, name="data", **more):
    for split in ("train", "val", "test"):
        table(folder / name / f"{split}.tsv", **more)


# --- Tables ---


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
@pytest.mark.parametrize(
    "names",
    [("source", "target"), ("input", "output"), ("text", "summary"), ("question", "answer")],
)
def test_usual_columns_are_found(folder, ending, names):
    file = folder / f"a.{ending}"
    table(file, [("x", *row) for row in ROWS], ("id", *names))
    found = read_paired(file, Columns())
    assert [(row.source, row.target, row.row) for row in found] == [
        (*row, i) for i, row in enumerate(ROWS)
    ]


def test_columns_by_name(folder):
    table(folder / "a.csv", [("un", "one", "source")], ("fr", "en", "source"))
    row = read_paired(folder / "a.csv", Columns("en", "fr"))[0]
    assert (row.source, row.target) == ("one", "un")
    # One that is named goes with a usual one.
    row = read_paired(folder / "a.csv", Columns(target="fr"))[0]
    assert (row.source, row.target) == ("source", "un")


def test_numbers_of_json_are_texts(folder):
    (folder / "a.jsonl").write_text('{"source": "two", "target": 2}\n')
    assert read_paired(folder / "a.jsonl", Columns())[0].target == "2"


@pytest.mark.parametrize(
    ("name", "text", "columns", "said"),
    [
        ("a.tsv", "text\tlabel\na\tb\n", {}, r"a.tsv has the columns text, label: data.target_column"),
        ("a.csv", "a,b\n1,2\n", {"source": "c"}, r"a.csv has no column source_column='c', only: a, b"),
        ("a.tsv", "source\ttarget\na\tb\nc\t \n", {}, r"a.tsv line 3 has an empty target"),
        ("a.tsv", "source\ttarget\n\tb\n", {}, r"a.tsv line 2 has an empty source"),
        ("a.tsv", "source\ttarget\n", {}, r"a.tsv has no line below the names"),
        ("a.jsonl", '{"source": "a", "target": "b"}\n{"source": "c"}\n', {}, r"line 2 has an empty t"),
        ("a.jsonl", '{"source": "a", "target": ["b"]}\n', {}, r"line 1 has no text as 'target', but \['b"),
        ("a.jsonl", '{"source": "a"\n', {}, r"a.jsonl line 1 is not JSON"),
        ("a.tsv", "source\ttarget\na\tb\n", {"task": "kind"}, r"no column task_column='kind'"),
    ],
)  # fmt: skip
def test_bad_tables_are_said_in_one_sentence(folder, name, text, columns, said):
    (folder / name).write_text(text)
    with pytest.raises(UserError, match=said) as refused:
        read_paired(folder / name, Columns(**columns))
    assert "\n" not in str(refused.value)


# --- Batches ---


def test_a_batch_is_what_a_decoder_reads_and_is_to_say(folder):
    splits(folder)
    data = made(prefix="colour: ")
    data.setup("fit")
    tokenizer = data.tokenizer
    batch = next(iter(data.train_dataloader()))
    assert data.assets()["start_id"] == data.model_arguments["bos_id"] == tokenizer.bos_id
    for i, text in enumerate(batch["source_text"]):
        source, answer = dict(ROWS), batch["target_text"][i]
        assert text.startswith("colour: ") and source[text.removeprefix("colour: ")] == answer
        row = batch["source"][i][batch["source_mask"][i]].tolist()
        assert row == [*tokenizer.encode(text), tokenizer.eos_id]
        count = int((batch["labels"][i] != IGNORE).sum())
        assert batch["labels"][i, :count].tolist() == [*tokenizer.encode(answer), tokenizer.eos_id]
        assert batch["target"][i, 0] == tokenizer.bos_id
        assert torch.equal(batch["target"][i, 1:count], batch["labels"][i, : count - 1])
        assert ROWS[batch["line"][i]][1] == answer and batch["task"][i] == ""
    # The longest answer and its end, and some more.
    assert data.assets()["generation"]["max_new_tokens"] == 4 + 1 + 10
    again = made()
    again.use_assets(data.assets())
    assert again.max_new_tokens == 15


def test_one_table_is_divided_and_a_text_stays_in_one_part(folder):
    table(folder / "all.csv", [(f"text {i // 2}", str(i)) for i in range(100)])
    data = made(str(folder / "all.csv"))
    parts = {split: data.rows(split)[""] for split in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == 100 and 5 < len(parts["val"]) < 15
    texts = [{row.source for row in rows} for rows in parts.values()]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 50


def test_columns_say_task_and_prefix(folder):
    rows = [("say it", "one", "1", "number"), ("what colour:", "a red star", "red", "colour")] * 3
    splits(folder, rows=rows, names=("how", "source", "target", "kind"))
    data = made(task_column="kind", prefix_column="how", prefix="please ")
    found = data.rows("train")
    assert found.keys() == {"number", "colour"} and len(found["colour"]) == 3
    assert found["number"][0].source == "please say it one"
    assert found["colour"][0].source == "please what colour: a red star"
    batch = next(iter(data.val_dataloader()))
    assert Counter(batch["task"]) == {"number": 3, "colour": 3}


def test_tasks_of_roots_of_their_own(folder):
    splits(folder, "one")
    splits(folder, "two", rows=[("un", "one")], names=("fr", "en"))
    given = {
        "colour": TextTask("one", "colour: "),
        "translate": {"root": "two", "source_column": "fr", "target_column": "en", "prefix": "to en: "},
        "count": {},
    }  # fmt: skip
    data = made(None, tasks=given, examples=40)
    found = data.rows("train")
    assert [len(found[name]) for name in given] == [3, 1, 40]
    assert found["translate"][0].source == "to en: un"
    assert all(row.source.startswith("count: ") for row in found["count"])
    batches = list(data.test_dataloader())
    names = Counter(name for batch in batches for name in batch["task"])
    assert names == {"colour": 3, "translate": 1, "count": 100}


def test_a_tokenizer_that_exists(folder):
    splits(folder)
    given = train_tokenizer("bpe", [text for row in ROWS for text in row], 300)
    given.inner.save(str(folder / "tokenizer.json"))
    data = made(tokenizer="tokenizer.json")
    assert data.model_arguments["vocab_size"] == given.vocab_size
    bare = train_tokenizer("char", ["abc"], specials=False)
    bare.inner.save(str(folder / "bare.json"))
    with pytest.raises(
        UserError, match="data.tokenizer='bare.json' names no eos_token and pad_tok"
    ):
        made(tokenizer="bare.json").setup("fit")


def test_longer_examples_are_left_out_of_training_alone(folder, caplog):
    splits(folder)
    data = made(max_tokens=10)
    assert [len(batch["line"]) for batch in data.train_dataloader()] == [1]
    assert "2 of 3 training pairs are longer than max_tokens=10" in caplog.text
    assert sum(len(batch["line"]) for batch in data.val_dataloader()) == 3
    with pytest.raises(UserError, match="data.max_tokens=3 leaves none of 3 training pairs"):
        made(max_tokens=3).train_dataloader()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"tasks": {"cuont": {}}},
            "data.tasks has 'cuont' without a root, .* Did you mean 'count'",
        ),
        (
            {"tasks": {"count": {"wieght": 2}}},
            "data.tasks.count: .*unexpected keyword argument 'wieg",
        ),
        ({"tasks": {"count": {"weight": 0.0}}}, "data.tasks.count.weight must be above 0, not 0.0"),
        ({"root": "data", "tasks": {"count": {}}}, "data.root=data beside data.tasks"),
        ({"prefix": "say: "}, "data.prefix and names of columns are of data.root"),
        ({"temperature": 0.5}, "data.temperature must be at least 1, not 0.5"),
    ],
)
def test_options_that_make_no_sense(options, said):
    with pytest.raises(UserError, match=said):
        TextToTextData(**options)


def test_a_root_without_a_split(folder):
    splits(folder)
    with pytest.raises(UserError, match="has no dev2.tsv, .csv or .jsonl for data.val='dev2'"):
        made(val="dev2").setup("fit")


# --- Mixtures ---


class At(LoaderProgress):
    epoch, process = 0, (0, 1)


def test_shares_are_those_of_the_paper():
    assert shares([100, 300], 1.0) == [100, 300]
    assert shares([100, 500], 2.0) == [185, 415]  # 1 to the root of 5
    assert shares([100, 400], 1e9) == [250, 250]
    assert shares([100, 100], 1.0, [3, 1]) == [150, 50]
    assert shares([1, 10_000], 1.0, [0.1, 1]) == [1, 10_001]  # one at least


def test_a_task_goes_through_all_its_examples_before_any_comes_again():
    seen = [drawn(10, 7, epoch, (0, 1)) for epoch in range(10)]
    assert [len(each) for each in seen] == [7] * 10
    every = np.concatenate(seen)
    assert set(Counter(every.tolist()).values()) == {7}
    assert all(sorted(every[i : i + 10]) == list(range(10)) for i in range(0, 70, 10))
    # Of one with few examples an epoch has each several times.
    assert Counter(drawn(3, 9, 2, (0, 0)).tolist()) == {0: 3, 1: 3, 2: 3}


def test_batches_have_the_shares_that_are_asked_for():
    groups, lengths = [0] * 40 + [1] * 360, [5] * 400
    plain = MixedBatches(lengths, 50, groups, 1.0, progress=At())
    assert sorted(i for batch in plain for i in batch) == list(range(400))
    mixed = MixedBatches(lengths, 50, groups, 1e9, progress=At())
    first = [i for batch in mixed for i in batch]
    assert len(first) == 400 and sum(i < 40 for i in first) == 200
    assert all(len(batch) * 5 <= 50 for batch in mixed) and list(mixed) == list(mixed)
    mixed.progress.epoch = 1
    later = [i for batch in mixed for i in batch]
    assert sorted(first) != sorted(later)
    # The larger task goes on where it was.
    assert len({i for i in (*first, *later) if i >= 40}) == 360


def test_weights_and_temperature_of_the_data_reach_the_batches(folder):
    tasks = {"count": TextTask(weight=3.0), "turn": TextTask()}
    data = made(None, tasks=tasks, examples=60)
    names = Counter(name for batch in data.train_dataloader() for name in batch["task"])
    assert names == {"count": 90, "turn": 30}


# --- The built-in world ---


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_text_of_a_built_in_task_is_in_two_splits(name):
    found = {split: paired_shapes(name, 150, 0, split) for split in ("train", "val", "test")}
    texts = [{row.source for row in rows} for rows in found.values()]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]
    assert all(row.source and row.target for rows in found.values() for row in rows)


def test_what_built_in_tasks_ask():
    row = paired_shapes("count", 20, 0, "train")
    words = {"a": 1, "two": 2, "three": 3, "four": 4}
    for each in row:
        said = sum(words.get(word, 0) for word in each.source.replace(",", "").split())
        assert said == int(each.target)
    for each in paired_shapes("colour", 20, 0, "train"):
        shape, _, listing = each.source.partition(" in ")
        part = next(p for p in listing.replace(" and ", ", ").split(", ") if shape in p)
        assert each.target in part.split()
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
    for each in paired_shapes("turn", 20, 0, "train"):
        one, other = each.source.split(" is "), each.target.split(" is ")
        how = next(word for word in opposite if word in one[1].split())
        assert opposite[how] in other[1].split() and one[1].endswith(other[0])
        assert other[1].endswith(one[0])
