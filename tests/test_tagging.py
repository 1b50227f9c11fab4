"""Tagging: what it learns and reports, and the command that uses what was trained."""

from __future__ import annotations

import csv
import json

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import family
from family.losses.language_model import IGNORE
from tasks.cli import main
from tasks.data.tagging import TaggingData
from tasks.errors import UserError
from tasks.runs.folder import RunRecord
from tasks.tagging import Tagging
from tasks.training.span_scores import SpanCounts

SMALL = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    "--data.examples=100",
    "--data.batch_size=8",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Neighbours(nn.Module):
    """Somebody else's model: what a token is by itself, and by the one before it."""

    def __init__(self, vocab_size, num_classes):
        super().__init__()
        self.own, self.before = (nn.Embedding(vocab_size, num_classes) for _ in range(2))

    def forward(self, input_ids, mask):
        return self.own(input_ids) + self.before(F.pad(input_ids, (1, 0))[:, :-1])


class Fixed(Neighbours):
    """One that is not trained, and makes mistakes."""

    def __init__(self, vocab_size, num_classes):
        super().__init__(vocab_size, num_classes)
        generator = torch.Generator().manual_seed(1)
        for table in (self.own, self.before):
            nn.init.normal_(table.weight, generator=generator)


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def write(folder):
    """Texts in which the name behind "dr" is a person; one of them is long."""
    lines = []
    for i in range(12):
        lines += [f"word{i}\tO", "dr\tB-per", f"name{i}\tI-per", f"name{i}\tB-loc", ""]
    for i in range(40):
        lines += ["dr\tB-per", f"name{i % 12}\tI-per", "is\tO"]
    for split in ("train", "val", "test"):
        (folder / f"{split}.conll").write_text("\n".join(lines))


@pytest.fixture
def people(folder):
    write(folder)
    return TaggingData(str(folder), vocab_size=420, batch_size=4)


def test_any_model_of_the_contract_learns(people):
    pl.seed_everything(0)
    task = Tagging(Neighbours, lr=0.1, warmup_steps=2, label_smoothing=0.05)
    runner = trainer(max_epochs=12)
    runner.fit(task, people)
    metrics = runner.callback_metrics
    assert metrics["val/f1"] > 0.95 and metrics["val/accuracy"] > 0.95
    assert {"val/precision", "val/recall", "val/f1_per", "val/f1_loc"} <= metrics.keys()
    assert len(task.samples) == 8
    assert "made: dr name0 [per], name0 [loc]" in task.samples[0]
    made = [row for batch in runner.predict(task, people) for row in batch]
    texts = people.texts("test")
    assert len(made) == sum(len(text.words) for text in texts)
    for row in made:
        text = texts[row["sentence"]]
        assert row["text"] == text.words[row["word"]] and row["line"] == text.lines[row["word"]]
        assert row["file"].endswith("test.conll") and 0 <= row["score"] <= 1


def expected(data):
    """Spans of whole texts, which the model of a token and its neighbour sees the same in any window."""
    data.setup("test")
    model, names = Fixed(**data.model_arguments).eval(), data.classes
    pairs, loss, words, right = [], 0.0, 0, 0
    for text, true in zip(data.texts("test"), data.labels("test"), strict=True):
        alone = TaggingData(data.root, max_tokens=512, batch_size=1)
        alone.use_assets({**data.assets(), "max_tokens": 512})
        alone._rows["test"] = [text]
        batch = next(iter(alone.test_dataloader()))
        logits = model(batch["input_ids"], batch["mask"])[batch["labels"] != IGNORE]
        ids = torch.tensor(true)
        loss += float(F.cross_entropy(logits, ids, reduction="sum").detach())
        right += int((logits.argmax(-1) == ids).sum())
        words += len(true)
        pairs.append((text.tags, [names[i] for i in logits.argmax(-1).tolist()]))
    return SpanCounts(pairs).scores(), loss / words, right / words


def test_windows_and_batches_change_no_score(people):
    scores, loss, accuracy = expected(people)
    assert 0 < scores["f1"] < 1
    for options in ({}, {"max_tokens": 12}, {"max_tokens": 12, "stride": 2, "batch_size": 1}):
        data = TaggingData(people.root, vocab_size=420, **options)
        found = trainer().test(Tagging(Fixed), data, verbose=False)[0]
        assert found["test/loss"] == pytest.approx(loss, rel=1e-5)
        assert found["test/accuracy"] == pytest.approx(accuracy)
        for name, value in scores.items():
            assert found[f"test/{name}"] == pytest.approx(value), name


def test_f1_counts_whole_spans():
    counts = SpanCounts(
        [
            (["B-a", "I-a", "O", "B-b"], ["B-a", "O", "O", "B-b"]),  # one too short, one right
            (["I-a", "B-a"], ["B-a", "S-a"]),  # other schemes, the same spans
            (["O", "B-b"], ["B-c", "O"]),
        ]
    )
    scores = counts.scores()
    assert (scores["precision"], scores["recall"], scores["f1"]) == (3 / 5, 3 / 5, 3 / 5)
    assert (scores["f1_a"], scores["f1_b"], scores["f1_c"]) == (2 / 3, 2 / 3, 0)
    assert counts.table()[2] == {
        "class": "c", "precision": 0.0, "recall": "", "f1": 0.0, "true": 0, "made": 1,
    }  # fmt: skip
    assert SpanCounts([(["O"], ["O"])]).scores()["f1"] == 0


def test_a_test_leaves_tables(people, folder):
    task = Tagging(Fixed)
    runner = trainer(callbacks=[RunRecord(folder / "run")])
    runner.test(task, people, verbose=False)

    def table(name):
        with (folder / f"run/test-{name}.csv").open(encoding="utf-8", newline="") as opened:
            return list(csv.DictReader(opened))

    assert {row["class"] for row in table("classes")} == {"loc", "per"}
    words = sum(len(text.words) for text in people.texts("test"))
    confusion = table("confusion")
    assert [row["true \\ made"] for row in confusion] == ["O", "B-loc", "B-per", "I-per"]
    assert sum(int(row[name]) for row in confusion for name in ("O", "B-loc")) < words
    worst = table("worst")
    chances = [float(row["true_probability"]) for row in worst]
    assert chances == sorted(chances) and all(row["true"] != row["made"] for row in worst)
    lines = (folder / "test.conll").read_text().split("\n")
    for row in worst:
        assert lines[int(row["line"]) - 1] == f"{row['text']}\t{row['true']}"


def test_weights_of_rare_tags(people):
    task, plain = Tagging(Fixed, class_weights="balanced"), Tagging(Fixed)
    batch = next(iter(people.train_dataloader()))
    for one in (task, plain):
        trainer(max_steps=1, limit_val_batches=0, num_sanity_val_steps=0).fit(one, people)
        one.model = Fixed(**people.model_arguments)
    own = batch["labels"] != IGNORE
    logits, labels = task.logits(batch)[own], batch["labels"][own]
    counts = torch.tensor(people.class_counts()).float()
    weights = counts.sum() / (len(counts) * counts)
    expected = F.cross_entropy(logits, labels, weights)
    torch.testing.assert_close(task.loss(batch)["loss"], expected)
    torch.testing.assert_close(plain.loss(batch)["loss"], F.cross_entropy(logits, labels))


def test_a_loader_of_ones_own(people):
    """Batches of tuples, without numbers of texts: a row is one."""
    batches = [(b["input_ids"], b["labels"], b["mask"]) for b in people.test_dataloader()]
    found = trainer().test(
        Tagging(Fixed(**people.model_arguments)),
        DataLoader(batches, batch_size=None),
        verbose=False,
    )[0]
    assert 0 < found["test/accuracy"] < 1 and found["test/f1"] == pytest.approx(
        found["test/accuracy"]  # nobody names the tags: each word is one
    )


def test_models_that_do_not_suit(people):
    whole = family.bert_tiny(420, dim=16, heads=2, num_classes=4, masked_head=False)
    with pytest.raises(
        UserError, match=r"gives logits \(\d+, 4\) .* set pooling=tokens and pooler"
    ):
        trainer(max_steps=1, num_sanity_val_steps=0).fit(Tagging(whole), people)
    people.max_tokens = 600
    with pytest.raises(
        UserError, match="data.max_tokens=600 is more than the model's max_tokens=512"
    ):
        trainer(max_steps=1).fit(Tagging(whole), people)


# --- The command -----------------------------------------------------------------------------


def fit(folder, *more):
    main(["fit", "--config=tagging/shapes", "--run_folder=run", *SMALL, *more])
    return json.loads((folder / "run/metrics-fit.json").read_text())


def test_from_fit_to_tag(folder, capsys):
    metrics = fit(folder)["metrics"]
    assert (
        0 <= metrics["val/f1"] <= 1
        and "true: " in (folder / "run/samples/step-000002.txt").read_text()
    )
    main(["test", "run", "--run_folder=tested"])
    assert (folder / "tested/test-classes.csv").is_file()
    capsys.readouterr()
    loaded = family.load("run")
    loaded.model.class_head.bias.data[1] += 9  # what is not trained yet finds nothing
    text = "two red stars, left"
    assert [span["word"] for span in loaded.predict([text])[0]] == [
        "two",
        "red",
        "stars",
        ",",
        "left",
    ]

    (folder / "texts.txt").write_text(f"{text}\n\na cross\n")
    main(["tag", "run", "texts.txt", "--format=jsonl"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["text"], row["line"]) for row in rows] == [(text, 1), ("", 2), ("a cross", 3)]
    assert rows[1]["spans"] == []
    main(["tag", "run", text, "--out=spans.csv"])
    with (folder / "spans.csv").open(newline="") as opened:
        for row in csv.DictReader(opened):
            assert text[int(row["start"]) : int(row["end"])] == row["word"]
    capsys.readouterr()
    main(["tag", "run", text])
    assert capsys.readouterr().out.startswith(f"{text}\t")


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code != 0
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    return printed.err


def test_mistakes_end_in_one_sentence(folder, capsys):
    fit(folder)
    capsys.readouterr()
    assert "trained for Tagging, but this command needs" in refused(
        ["classify", "run", "a"], capsys
    )
    assert "nowhere.txt does not exist" in refused(["tag", "run", "nowhere.txt"], capsys)
    said = refused(["fit", "--config=tagging/shapes", "--data.root=nowhere", *SMALL], capsys)
    assert "data.root nowhere does not exist" in said
    (folder / "train.conll").write_text("a\tO\nb\tO\tO\n")
    said = refused(["fit", "--config=tagging/shapes", "--data.root=.", *SMALL], capsys)
    assert "train.conll line 2 has 3 columns, but line 1 has 2" in said


@pytest.mark.slow
def test_a_published_model_learns_tags(folder, capsys):
    """A masked model, with its tokenizer, becomes a tagger by a line of a config; and is one when saved."""
    fit(folder, "--data.tokenizer=bpe")
    tokenizer = family.load("run").tokenizer
    size = tokenizer.vocab_size
    masked = family.bert_tiny(size, dim=16, heads=2, max_tokens=64)
    masked.tokenizer = tokenizer
    family.save_pretrained(masked, folder / "masked", format="bert")
    main(["fit", "--model=tasks.Tagging", "--model.pretrained=masked", "--data=tasks.TaggingData",
          "--run_folder=tuned", *SMALL])  # fmt: skip
    tuned = family.load("tuned")
    assert (
        tuned.task == "Tagging" and tuned.model.pooling == "tokens" and tuned.model.pooler is None
    )
    assert tuned.labels == ["O", "B-colour", "B-number", "B-place", "B-shape", "I-place"]
    family.save_pretrained(tuned.model, folder / "saved", format="bert")
    capsys.readouterr()
    main(["tag", "saved", "two red stars", "--format=jsonl"])
    row = json.loads(capsys.readouterr().out)
    assert row["spans"] == tuned.predict(["two red stars"])[0]
    assert family.load("saved").labels == tuned.labels
