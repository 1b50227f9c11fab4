"""``family evaluate``: scores of files, what they are of, and what is refused."""

from __future__ import annotations

import csv
import hashlib
import json
import sys

import pytest
import torch

import family
from family import TransformerConfig
from family.inference.likelihood import log_likelihoods
from tasks.cli import main
from tasks.data.tokenizers import train_tokenizer
from tasks.evaluation.files import built_in

TEXTS = ["a red circle above two blue squares", "the star is small", "three large crosses"]
PAIRS = [
    {
        "sentence_good": f"the {name} is small",
        "sentence_bad": f"the {name} are small",
        "field": field,
    }
    for name, field in [("star", "one"), ("circle", "one"), ("square", "two"), ("cross", "two")]
]
CHOICE = {"prompt": "a red", "choices": ["circle", "square"], "answer": "circle"}


def saved(folder, kind="bpe", task=None, max_tokens=64):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(kind, TEXTS * 3, 290)
    if kind == "char":
        tokenizer = train_tokenizer(kind, TEXTS, specials=("<eos>",))
    stack = {"dim": 16, "depth": 1, "heads": 2, "max_tokens": max_tokens}
    if task is None:
        model = family.GPT(tokenizer.vocab_size, TransformerConfig(**stack, causal=True))
    else:
        model = family.BERT(tokenizer.vocab_size, TransformerConfig(**stack))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.tokenizer = tokenizer
    family.save_pretrained(model, folder)
    return str(folder)


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return saved(tmp_path / "model")


def written(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def records(capsys, *arguments):
    capsys.readouterr()
    main(["evaluate", *map(str, arguments), "--format=jsonl"])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_minimal_pairs_by_file_group_and_all(source, tmp_path, capsys):
    one = written(tmp_path / "tasks" / "one.jsonl", PAIRS[:3])
    written(tmp_path / "tasks" / "two.jsonl", PAIRS[3:])
    model = family.load(source).model
    # As BLiMP is defined: a space, and the token that begins a text before it.
    said = [("", f" {row[name]}") for row in PAIRS for name in ("sentence_good", "sentence_bad")]
    totals = [found.total for found in log_likelihoods(model, said)]
    right = [good > bad for good, bad in zip(totals[::2], totals[1::2], strict=True)]
    found = records(capsys, source, "--tasks", tmp_path / "tasks")
    values = {row["task"] or row["group"]: row["value"] for row in found}
    assert values == {
        "one": pytest.approx(sum(right[:3]) / 3),
        "two": right[3],
        "field=one": sum(right[:2]) / 2,
        "field=two": sum(right[2:]) / 2,
        "all": sum(right) / 4,
    }
    first = found[0]
    assert (first["items"], first["metric"], first["kind"]) == (3, "acc", "minimal pairs")
    assert first["sha256"] == hashlib.sha256(one.read_bytes()).hexdigest()
    assert (first["source"], first["longest"], first["cut"], first["left_out"]) == (
        source, 64, 0, 0
    )  # fmt: skip
    assert records(capsys, source, "--tasks", one, "--limit=2")[0]["items"] == 2


def test_no_batch_size_moves_a_score(source, tmp_path, capsys):
    rows = [
        {
            "question": f"{row['sentence_good']} or",
            "choices": ["a", "circle two", "red"],
            "answer": i % 3,
        }
        for i, row in enumerate(PAIRS)
    ]
    file = written(tmp_path / "choices.jsonl", rows)
    other = written(
        tmp_path / "more.jsonl",
        [{"prompt": "the star", "completion": "is small"}, {"prompt": "a", "completion": "red"}],
    )
    by_size = [
        records(capsys, source, "--tasks", file, other, f"--batch_size={size}", "--shots=1")
        for size in (1, 3, 64)
    ]
    assert [row["metric"] for row in by_size[0]] == [
        "acc", "acc_norm", "acc_bytes", "acc", "perplexity"
    ]  # fmt: skip
    for found in by_size[1:]:
        for row, other_row in zip(found, by_size[0], strict=True):
            assert row["value"] == pytest.approx(other_row["value"], rel=1e-5)
            assert row | {"value": 0, "stderr": 0} == other_row | {"value": 0, "stderr": 0}


def test_a_table_and_what_must_be_known_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = saved(tmp_path / "model", "char", max_tokens=16)
    unknown = {"sentence_good": "Zebras are small", "sentence_bad": "Zebras is small"}
    file = written(tmp_path / "pairs.jsonl", [*PAIRS, unknown])
    main(["evaluate", source, "--tasks", str(file)])
    out = capsys.readouterr().out
    assert "pairs" in out and "4 items" in out
    # A space, 17 characters or more, and of them the last is not read.
    assert "reads 16 tokens: 4 of the items are longer, and of them the begin was left out." in out
    assert "1 of the items have a character that the tokenizer of" in out
    main(["evaluate", source, "--tasks", str(file), "--out=found.csv"])
    (row, *_) = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert (row["items"], row["cut"], row["left_out"]) == ("4", "4", "1")
    only = written(tmp_path / "only.jsonl", [unknown])
    assert "there is nothing to score" in refused(capsys, source, "--tasks", only)


def test_what_is_equally_likely_is_told(source, tmp_path, capsys):
    """BLiMP itself has a pair of one sentence twice."""
    same = {"sentence_good": "the star", "sentence_bad": "the star"}
    file = written(tmp_path / "pairs.jsonl", [same])
    (row,) = records(capsys, source, "--tasks", file)
    assert (row["value"], row["tied"]) == (1.0, 1)
    main(["evaluate", source, "--tasks", str(file)])
    assert "1 of the items have a choice that is as likely" in capsys.readouterr().out


def test_the_built_in_task():
    items = built_in().items
    assert len(items) == 300 == len({item.said() for item in items})
    assert {item.groups[0][1] for item in items} == {"singular", "plural"}
    # Neither answer is the begin of the other, which would always be likelier.
    assert not [i for i in items if i.choices[0].startswith(i.choices[1]) or i.choices[1].startswith(i.choices[0])]  # fmt: skip


def refused(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["evaluate", *map(str, arguments)])
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"answer": 2},
            "line 2: answer=2 is none of the 2 choices: it must be a number from 0 to 1",
        ),
        ({"answer": -1}, "answer=-1 is none of the 2 choices"),
        ({"answer": True}, "answer=True is none of the 2 choices"),
        ({"answer": "circles"}, "Did you mean 'circle'?"),
        ({"choices": ["circle"]}, "choices must be a list of two texts or more, not ['circle']"),
        ({"choices": ["circle", " "]}, "line 2: choices is empty"),
        ({"choices": ["circle", "circle"]}, "the same text twice among its choices"),
        ({"prompt": 3}, "line 2: prompt must be a text, not 3"),
        ({"prompt": ""}, "line 2: prompt is empty"),
        ({"prompt": "a \ud83d"}, r"bad.jsonl line 2 has \ud83d alone, half of a character"),
        (PAIRS[0], "line 2 is of minimal pairs, but line 1 of multiple choice"),
    ],
)
def test_rows_that_are_refused(source, tmp_path, capsys, row, sentence):
    file = written(tmp_path / "bad.jsonl", [CHOICE, {**CHOICE, **row}])
    assert sentence in refused(capsys, source, "--tasks", file)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"text": "a", "label": 1}, "line 1 has the fields text, label: a row needs sentence_good"),
        ({"sentence_good": "a star", "sentence_bad": ""}, "line 1: sentence_bad is empty"),
    ],
)
def test_files_that_are_refused(source, tmp_path, capsys, row, sentence):
    file = written(tmp_path / "bad.jsonl", [row])
    assert sentence in refused(capsys, source, "--tasks", file)


def test_calls_that_are_refused(source, tmp_path, capsys, monkeypatch):
    file = written(tmp_path / "pairs.jsonl", PAIRS)
    choices = written(tmp_path / "choices.jsonl", [CHOICE, {**CHOICE, "answer": 1}])
    (tmp_path / "empty").mkdir()
    bert = saved(tmp_path / "bert", task="masked")
    for arguments, sentence in [
        ((source, "--tasks", file, "--shots=2"), "which are judged without examples"),
        ((source, "--tasks", choices, "--shots=2"), "has only 1 rows that say something else"),
        ((source, "--tasks", "empty"), "empty is a folder without any .jsonl file"),
        (
            (source, "--tasks", "pair.jsonl"),
            "pair.jsonl does not exist. Did you mean 'pairs.jsonl'?",
        ),
        ((source, "--tasks", file, "--shots=-1"), "--shots must be at least 0"),
        (
            (source, "--tasks", file, "--apply_chat_template"),
            "is for tasks of lm-evaluation-harness",
        ),
        ((bert, "--tasks", file), "but this needs LanguageModeling"),
    ]:
        assert sentence in refused(capsys, *arguments)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "tasks.evaluation.harness", raising=False)
    said = refused(capsys, source, "--tasks", "hellaswag")
    assert "need it: pip install 'transformer-family[eval]'" in said
