"""What commands are given: files are read, or refused in one sentence, never taken for a text."""

from __future__ import annotations

import csv
import io
import json

import pytest
import torch
from PIL import Image

import family
from family.inputs.encode import with_ends
from family.inputs.preprocess import Preprocess
from tasks.cli import main
from tasks.commands import COMMANDS
from tasks.commands.results import not_their_folder
from tasks.commands.sentences import given_or_read, texts_of
from tasks.data.tokenizers import train_tokenizer
from tasks.errors import UserError

SMALL = {"dim": 16, "depth": 1, "heads": 2}
TEXTS = ["a red circle", "two blue squares, and a star", "green"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def classifier(folder):
    torch.manual_seed(0)
    tokenizer = with_ends(train_tokenizer("bpe", TEXTS, 300))
    stack = {**SMALL, "max_tokens": 32}
    model = family.bert_tiny(tokenizer.vocab_size, num_classes=2, masked_head=False, **stack)
    model.tokenizer, model.labels = tokenizer, ["good", "bad"]
    family.save_pretrained(model, folder / "bert")
    return "bert"


@pytest.fixture
def clip(folder):
    torch.manual_seed(0)
    tokenizer = train_tokenizer("char", [*TEXTS, "abcdefghijklmnopqrstuvwxyz./"])
    model = family.clip_small(tokenizer.vocab_size, image_size=16, **SMALL)
    model.tokenizer = tokenizer
    model.preprocess = Preprocess((16, 16))
    family.save_pretrained(model, folder / "clip")
    for i in range(3):
        Image.new("RGB", (20, 20), (80 * i, 10, 200)).save(folder / f"{i}.png")
    return "clip"


def said(capsys, *arguments):
    capsys.readouterr()
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        said(capsys, *arguments)
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\n".join(TEXTS) + "\n"),
        ("a.csv", 'id,text\n1,a red circle\n2,"two blue squares, and a star"\n3,green\n'),
        ("a.tsv", "text\tlabel\na red circle\tx\ntwo blue squares, and a star\tx\ngreen\ty\n"),
        ("b.tsv", "a red circle\tx\ntwo blue squares, and a star\tx\ngreen\ty\n"),
        ("a.jsonl", "".join(json.dumps({"sentence": text}) + "\n" for text in TEXTS)),
        ("one.csv", '"whatever"\na red circle\n"two blue squares, and a star"\ngreen\n'),
        ("mark.txt", "\ufeff" + "\n".join(TEXTS)),
    ],
)
def test_a_file_is_read(folder, name, content):
    (folder / name).write_text(content, encoding="utf-8")
    assert list(given_or_read([name])) == TEXTS
    found = list(texts_of(["before", name]))
    assert found[0] == ("before", "", 0, None) and found[2].file == name
    assert content.split("\n")[found[-1].line - 1].find("green") >= 0


def test_what_names_no_texts_is_refused(folder):
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    (folder / "a.csv").write_text("x,y\n1,2\n")
    for given, message in {
        "a.png": "a.png is a picture, but the model reads texts",
        str(folder): "is a folder, but the model reads texts",
        "b.csv": "b.csv does not exist. Did you mean 'a.csv'?",
        "a.csv": "a.csv has the columns x, y, none of them called text: --column names",
    }.items():
        with pytest.raises(UserError, match=message.replace("?", r"\?")):
            list(given_or_read([given]))
    assert [one.text for one in texts_of(["a.csv"], "y")] == ["2"]
    long = ["see a.csv", "x" * 5000, "what about b.csv", "", "what.ever", "a\nb.txt"]
    assert list(given_or_read(long)) == long


def test_classify_reads_a_file(classifier, folder, capsys):
    (folder / "a.csv").write_text("text\n" + "\n".join(f'"{text}"' for text in TEXTS))
    shown = said(capsys, "classify", classifier, "a.csv")
    assert shown == said(capsys, "classify", classifier, *TEXTS)
    assert [line.split("\t")[0] for line in shown.splitlines()] == TEXTS
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    assert "a.png is a picture" in refused(capsys, "classify", classifier, "a.png")


def test_classes_as_records(classifier, folder, capsys):
    (folder / "a.txt").write_text("\n".join(TEXTS))
    rows = said(capsys, "classify", classifier, "a.txt", "--format", "jsonl").splitlines()
    rows = [json.loads(row) for row in rows]
    wanted = family.load(classifier).predict(TEXTS)
    for line, (row, one, text) in enumerate(zip(rows, wanted, TEXTS, strict=True), 1):
        assert (row["file"], row["line"], row["text"]) == ("a.txt", line, text)
        assert row["label"] == one["label"] and list(row["probabilities"]) == ["good", "bad"]
        assert row["probabilities"] == pytest.approx(one["probabilities"], abs=1e-6)
    said(capsys, "classify", classifier, "a.txt", "--out", "found/a.csv")
    with (folder / "found/a.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["text"] for row in table] == TEXTS
    assert float(table[1]["probabilities.bad"]) == rows[1]["probabilities"]["bad"]
    message = refused(capsys, "classify", classifier, "a.txt", "--out", "./a.txt")
    assert "is one of the inputs" in message and (folder / "a.txt").read_text() == "\n".join(TEXTS)


def test_clip_embeds_pictures_that_are_named(clip, folder, capsys):
    rows = [json.loads(row) for row in said(capsys, "embed", clip, "0.png", "2.png").splitlines()]
    assert [row["file"] for row in rows] == ["0.png", "2.png"]
    wanted = family.load(clip).embed(pictures=["0.png", "2.png"])
    torch.testing.assert_close(torch.tensor([row["embedding"] for row in rows]), wanted)
    assert "pictures and texts" in refused(capsys, "embed", clip, "0.png", "a red circle")
    table = csv.reader(io.StringIO(said(capsys, "embed", clip, "a red", "--format", "csv")))
    assert next(table)[:2] == ["text", "embedding.0"]
    assert "0.png is a picture, but" in refused(capsys, "search", clip, "0.png", ".")


@pytest.mark.parametrize("batch_size", [1, 2, 99])
def test_a_broken_picture_is_skipped_if_so_wanted(clip, folder, capsys, batch_size):
    (folder / "1.png").write_bytes(b"nothing")
    call = ["search", clip, "a red circle", "0.png", "1.png", "2.png", "--out", "s.jpg"]
    call += ["--batch_size", batch_size, "--device", "cpu"]
    assert "1.png is not a picture" in (message := refused(capsys, *call))
    assert "--on_bad skip would leave it out" in message
    capsys.readouterr()
    main([*map(str, call), "--on_bad", "skip", "--format", "jsonl"])
    printed = capsys.readouterr()
    rows = [json.loads(row) for row in printed.out.splitlines()]
    assert {row["file"] for row in rows} == {"0.png", "2.png"}
    assert "left out: 1.png is not a picture" in printed.err


def test_what_is_read_is_not_written_over(clip, folder, capsys):
    before = {path: path.read_bytes() for path in folder.glob("*.png")}
    message = refused(capsys, "search", clip, "a red circle", ".", "--out", "0.png")
    assert "0.png is one of the inputs" in message
    for command in ("detect", "segment"):
        message = refused(capsys, command, clip, "0.png", "1.png", "--out", ".")
        assert "--out . is the folder of 0.png" in message
    assert {path: path.read_bytes() for path in folder.glob("*.png")} == before


def test_where_and_how_exactly(clip, folder, capsys):
    exact = json.loads(said(capsys, "embed", clip, "0.png"))["embedding"]
    rough = json.loads(said(capsys, "embed", clip, "0.png", "--precision", "bf16"))["embedding"]
    assert exact != rough and exact == pytest.approx(rough, abs=0.05)
    assert "--device cuda:77 cannot be used" in refused(
        capsys, "embed", clip, "0.png", "--device", "cuda:77"
    )
    assert "--batch_size must be at least 1" in refused(
        capsys, "embed", clip, "0.png", "--batch_size", "0"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_takes_a_part_of_an_option_for_it(command, capsys):
    """A misspelt option would be another's: --max for --max_new_tokens."""
    with pytest.raises(SystemExit) as stopped:
        main([command, "--hel"])
    assert stopped.value.code == 2 and "usage: family" in capsys.readouterr().err


@pytest.fixture
def translator(folder):
    torch.manual_seed(0)
    tokenizer = train_tokenizer("char", TEXTS)
    model = family.transformer_base(tokenizer.vocab_size, max_tokens=32, **SMALL)
    model.tokenizer = tokenizer
    family.save_pretrained(model, folder / "seq2seq")
    return "seq2seq"


def test_a_file_is_translated_as_its_lines_are(folder, translator, capsys):
    (folder / "a.txt").write_text("\n".join(TEXTS))
    alone = said(capsys, "translate", translator, *TEXTS).splitlines()
    rows = said(capsys, "translate", translator, "a.txt", "--format", "jsonl", "--batch_size", 2)
    found = [json.loads(row) for row in rows.splitlines()]
    assert [row["translation"] for row in found] == alone and len(alone) == 3
    assert [(row["file"], row["line"], row["text"]) for row in found] == [
        ("a.txt", i, text) for i, text in enumerate(TEXTS, 1)
    ]
    assert "no such device" not in said(capsys, "translate", translator, "green", "--device=cpu")
    assert "--device abacus cannot be used" in refused(
        capsys, "translate", translator, "green", "--device=abacus"
    )


def table_of(shown):
    return list(csv.DictReader(io.StringIO(shown)))


def test_tables_have_all_columns_whatever_comes_first(classifier, folder, capsys):
    (folder / "a.txt").write_text("\n".join(["", *TEXTS]))
    rows = table_of(said(capsys, "classify", classifier, "a.txt", "--format", "csv"))
    assert rows[0]["label"] == rows[0]["probabilities.bad"] == ""
    assert all(row["label"] and float(row["probabilities.bad"]) for row in rows[1:])
    rows = table_of(said(capsys, "classify", classifier, "green", "a.txt", "--format", "csv"))
    assert [(row["file"], row["line"], row["text"]) for row in rows] == [
        ("", "", "green"),
        *[("a.txt", str(n), text) for n, text in enumerate(["", *TEXTS], 1)],
    ]
    rows = said(capsys, "classify", classifier, "", "--format", "jsonl").splitlines()
    assert json.loads(rows[0])["probabilities"] == {"good": None, "bad": None}


def test_lines_and_records_call_classes_alike(classifier, folder, capsys):
    model = family.from_pretrained(classifier)
    model.labels = ["crane", "crane"]
    family.save_pretrained(model, folder / "cranes")
    line = said(capsys, "classify", "cranes", "green", "--top", "2")
    record = json.loads(said(capsys, "classify", "cranes", "green", "--format", "jsonl"))
    likely = sorted(record["probabilities"].items(), key=lambda pair: -pair[1])
    assert line == "green\t" + ", ".join(f"{name} {chance:.3f}" for name, chance in likely) + "\n"


def test_a_link_to_a_picture_is_not_written_through(folder):
    for name in ("there", "out"):
        (folder / name).mkdir()
    Image.new("RGB", (4, 4)).save(folder / "there/a.png")
    (folder / "out/a.png").symlink_to(folder / "there/a.png")
    not_their_folder(folder / "other", [folder / "out/a.png"])
    for place in ("out", "there"):
        with pytest.raises(UserError, match=r"is the folder of a\.png"):
            not_their_folder(folder / place, [folder / "out/a.png"])
