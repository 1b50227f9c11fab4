"""Questions: the loss of transformers, the best spans, what is reported, and the command that answers."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

import family
from family.inference.answers import best_spans, joined
from tasks.cli import main
from tasks.compare.metrics import METRICS
from tasks.data.question_answering import QuestionAnsweringData
from tasks.errors import UserError
from tasks.question_answering import QuestionAnswering, span_loss
from tasks.runs.folder import RunRecord

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


class Pointer(nn.Module):
    """Somebody else's model: each token says by itself whether it begins or ends an answer."""

    def __init__(self, vocab_size, num_classes):
        super().__init__()
        self.table = nn.Embedding(vocab_size, num_classes)
        nn.init.normal_(self.table.weight, generator=torch.Generator().manual_seed(1))

    def forward(self, input_ids, mask):
        return self.table(input_ids)


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def write(folder, impossible=True):
    """Names are what is asked for; in the last paragraphs there is none."""
    paragraphs = []
    for i in range(24):
        name = f"Ann{i % 8}"
        there = not impossible or i < 16
        text = "it is said that somebody was here, or not, as one may see " * (1 + i % 3)
        text += f"and {name if there else 'nobody'} was there."
        given = [{"text": name, "answer_start": text.index(name)}] if there else []
        asked = {
            "id": f"q{i}",
            "question": "Who was?",
            "answers": given,
            "is_impossible": not there,
        }
        paragraphs.append({"context": text, "qas": [asked]})
    for split in ("train", "val", "test"):
        file = {"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}
        (folder / f"{split}.json").write_text(json.dumps(file))
    return paragraphs


def names(folder, **options):
    options = {"max_tokens": 32, "stride": 8, "vocab_size": 420, "batch_size": 8, **options}
    return QuestionAnsweringData(str(folder), **options)


# --- Loss ---


def test_the_loss_is_that_of_transformers_and_padding_changes_nothing():
    """In float64, gradients too: their loss of each row by itself, as theirs counts padding in."""
    pytest.importorskip("transformers")
    sys.path.insert(0, str(Path(__file__).parent / "parity"))
    import harness
    from cases import encoders, text_encoders

    cases = [*encoders.CASES, *text_encoders.CASES]
    cases = [one for one in cases if one.member in ("BERT, answers", "ModernBERT, answers")]
    assert len(cases) == 2
    for case in cases:
        ours, theirs = harness.pair(case, torch.float64)
        batch = case.batch()
        batch |= {"starts": torch.tensor([3, 0, 99]), "ends": torch.tensor([12, 0, 2])}
        loss = QuestionAnswering(ours)
        loss.model = ours
        found = loss.loss(batch)["loss"]
        alone = []
        for i, length in enumerate(batch["mask"].sum(1).tolist()):
            row = {name: batch[name][i : i + 1, :length] for name in ("input_ids", "mask")}
            if "token_types" in batch:
                row["token_types"] = batch["token_types"][i : i + 1, :length]
            places = {"start_positions": batch["starts"][i], "end_positions": batch["ends"][i]}
            made = theirs(**encoders.arguments(row), **{n: p[None] for n, p in places.items()})
            if i < 2:  # the mean of both
                torch.testing.assert_close(
                    span_loss(
                        loss.logits(row), batch["starts"][i : i + 1], batch["ends"][i : i + 1]
                    ),
                    made.loss,
                )
            alone.append((made.start_logits, made.end_logits))
        starts = torch.stack([alone[i][0][0].log_softmax(0)[p] for i, p in ((0, 3), (1, 0))])
        ends = torch.stack([alone[i][1][0].log_softmax(0)[p] for i, p in ((0, 12), (1, 0), (2, 2))])
        expected = -(starts.mean() + ends.mean()) / 2  # the begin of the third is nowhere
        assert abs(float((found - expected).detach())) < 1e-8  # their rotary tables are float32
        found.backward()
        expected.backward()
        assert harness.gradients(case, ours, theirs).relative < 1e-6


# --- Spans ---


def test_the_best_span_is_the_best_of_all():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 12, 2, generator=generator)
    places = torch.full((6, 12, 2), -1)
    starts = torch.arange(8) * 3
    places[:, 3:11] = torch.stack([starts, starts + 2], -1)
    places[5] = -1  # no text at all
    for longest in (1, 3, 30):
        for row, span in enumerate(best_spans(logits, places, longest)[:5]):
            spans = {
                (i, j): float(logits[row, i, 0] + logits[row, j, 1])
                for i in range(3, 11)
                for j in range(i, min(i + longest, 11))
            }
            first, last = max(spans, key=spans.get)
            assert (span.start, span.end) == (3 * (first - 3), 3 * (last - 3) + 2)
            assert span.score == pytest.approx(spans[first, last], rel=1e-5)
            assert span.none == pytest.approx(float(logits[row, 0].sum()), rel=1e-5)
            total = math.log(sum(math.exp(score) for score in spans.values()))
            assert span.total == pytest.approx(total, rel=1e-5)
            with_none = math.exp(span.score) / (math.exp(total) + math.exp(span.none))
            assert span.chance(True, True) == pytest.approx(with_none, rel=1e-4)
    empty = best_spans(logits, places)[5]
    assert (empty.start, empty.end) == (0, 0) and empty.score == -math.inf


def test_windows_are_joined():
    generator = torch.Generator().manual_seed(2)
    logits, places = torch.randn(3, 9, 2, generator=generator), torch.full((3, 9, 2), -1)
    for row in range(3):
        places[row, 2:, 0] = torch.arange(7) + 5 * row
        places[row, 2:, 1] = torch.arange(7) + 5 * row + 1
    spans = best_spans(logits, places)
    whole = joined(spans)
    assert whole.score == max(span.score for span in spans)
    assert whole.none == min(span.none for span in spans)
    assert math.exp(whole.total) == pytest.approx(sum(math.exp(s.total) for s in spans), rel=1e-4)


# --- Evaluation ---


def test_it_learns_and_each_question_counts_once(folder):
    paragraphs = write(folder)
    pl.seed_everything(0)
    data = names(folder)
    task = QuestionAnswering(Pointer, lr=0.5, warmup_steps=2)
    runner = trainer(max_epochs=12, callbacks=[RunRecord(folder / "run")])
    runner.fit(task, data)
    found = runner.callback_metrics
    assert found["val/f1_answerable"] > 0.9 and found["val/exact_match"] <= found["val/f1"]
    assert {"val/best_f1", "val/best_f1_threshold", "val/best_exact_match"} <= found.keys()
    assert "made: Ann" in "".join(task.samples) and "true: (none)" in "".join(task.samples)
    # One process, windows of other lengths: the same questions.
    tested = runner.test(task, data, verbose=False)[0]
    with (folder / "run/test-answers.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["id"] for row in rows] == [f"q{i}" for i in range(24)]
    for name in ("f1", "exact_match"):
        mean = sum(float(row[name]) for row in rows) / 24
        assert tested[f"test/{name}"] == pytest.approx(mean, abs=1e-6)
    made = [row for batch in runner.predict(task, data) for row in batch]
    assert len(made) == 24
    for row in made:
        text = paragraphs[row["line"]]["context"]
        if row["answer"]:
            assert text[row["start"] : row["end"]] == row["answer"]
        else:
            assert row["start"] is None and row["no_answer"] > 0
    official = json.loads((folder / "run/squad-predictions.json").read_text())
    assert official == {row["id"]: row["answer"] for row in made}
    assert [row["made"] for row in rows] == [official[row["id"]] for row in rows]


@pytest.mark.parametrize("threshold", [None, -1e9, 1e9])
def test_when_there_is_no_answer(folder, threshold):
    write(folder)
    task = QuestionAnswering(Pointer, no_answer_threshold=threshold)
    found = trainer().test(task, names(folder), verbose=False)[0]
    if threshold is None:
        assert task.assets()["threshold"] == 0
    elif threshold < 0:  # never an answer
        assert found["test/accuracy_unanswerable"] == 1 and found["test/f1_answerable"] == 0
        assert found["test/f1"] == pytest.approx(8 / 24)
    else:
        assert found["test/accuracy_unanswerable"] == 0
    write(folder, impossible=False)
    found = trainer().test(QuestionAnswering(Pointer), names(folder), verbose=False)[0]
    assert "test/best_f1" not in found and "test/f1_answerable" not in found


def test_batches_and_order_change_no_score(folder):
    write(folder)
    found = []
    for size in (1, 3, 24):
        task = QuestionAnswering(Pointer)
        found.append(trainer().test(task, names(folder, batch_size=size), verbose=False)[0])
    for other in found[1:]:
        assert other == pytest.approx({**found[0]}, rel=1e-5)


def test_what_a_comparison_resamples(folder):
    write(folder)
    rows, callback = [], pl.Callback()
    callback.on_test_batch_end = lambda *given: rows.append(given[2])
    found = trainer(callbacks=[callback]).test(
        QuestionAnswering(Pointer), names(folder), verbose=False
    )
    for name in ("f1", "exact_match"):
        told = [
            dict(zip(batch, row, strict=True))
            for batch in rows
            for row in zip(*batch.values(), strict=True)
        ]
        assert sorted(row["line"] for row in told) == list(range(24))
        assert METRICS[name](told)(np.ones((1, 24))) == pytest.approx(found[0][f"test/{name}"])


def test_a_loader_of_ones_own():
    """Tuples, without texts: words are tokens, and every row is a question."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 30, (6, 9), generator=generator)
    mask = torch.arange(9) < torch.tensor([9, 9, 7, 7, 5, 9])[:, None]
    starts, ends = torch.tensor([1, 3, 2, 0, 1, 4]), torch.tensor([2, 3, 6, 0, 4, 8])
    model = Pointer(30, 2)
    found = trainer().test(
        QuestionAnswering(model, no_answer_threshold=1e9),
        DataLoader([(ids, starts, ends, mask)], batch_size=None),
        verbose=False,
    )[0]
    logits, right, shared = model(ids, mask), 0, 0.0
    for i in range(6):
        spans = {
            (a, b): float(logits[i, a, 0] + logits[i, b, 1])
            for a in range(1, int(mask[i].sum()))
            for b in range(a, int(mask[i].sum()))
        }
        a, b = max(spans, key=spans.get)
        made, true = set(range(a, b + 1)), set(range(starts[i], ends[i] + 1)) - {0}
        right += made == true
        shared += 2 * len(made & true) / (len(made) + len(true)) if true else 0
    assert found["test/exact_match"] == pytest.approx(right / 6)
    assert found["test/f1"] == pytest.approx(shared / 6)


def test_models_that_do_not_suit(folder):
    write(folder)
    whole = family.bert_tiny(420, dim=16, heads=2, num_classes=2, masked_head=False)
    with pytest.raises(UserError, match=r"gives logits \(\d+, 2\) .* set pooling=spans"):
        trainer(max_steps=1, num_sanity_val_steps=0).fit(QuestionAnswering(whole), names(folder))
    data = names(folder, max_tokens=600)
    with pytest.raises(
        UserError, match="data.max_tokens=600 is more than the model's max_tokens=512"
    ):
        trainer(max_steps=1).fit(QuestionAnswering(whole), data)


# --- Commands ---


def test_from_fit_to_answer(folder, capsys):
    main(["fit", "--config=question_answering/shapes", "--run_folder=run", *SMALL])
    text = "the small red star is on the left, the large blue cross is at the top."
    asked = ["what is on the left?", "what colour is the cross at the top?"]
    loaded = family.load("run")
    assert loaded.assets["threshold"] == 0 and loaded.task == "QuestionAnswering"
    expected = loaded.predict(asked, contexts=[text, text], threshold=1e9)
    for made in expected:
        assert made["answer"] == text[made["start"] : made["end"]] != ""
    capsys.readouterr()
    given = [f"--question={one}" for one in asked]
    main(["answer", "run", *given, f"--context={text}", "--threshold=1e9", "--format=jsonl"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [{n: row[n] for n in expected[0]} for row in rows] == expected
    paragraphs = write(folder)
    main(["answer", "run", "test.json", "--out=made/answers.json"])
    official = json.loads((folder / "made/answers.json").read_text())
    assert list(official) == [f"q{i}" for i in range(24)]
    assert all(official[f"q{i}"] in one["context"] for i, one in enumerate(paragraphs))
    main(["answer", "run", "test.json", "--format=csv", "--out=answers.csv"])
    with (folder / "answers.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert {row["id"]: row["answer"] for row in rows} == official
    # A published model is one of a folder too, with the threshold of its run.
    family.save_pretrained(loaded.model, folder / "saved")
    again = family.load("saved")
    assert again.task == "QuestionAnswering" and again.assets["threshold"] == 0
    for arguments, words in (
        (["run"], "takes a file of questions, or --question with the --context"),
        (["run", "--question=who?"], "takes a file of questions, or --question with"),
        (["run", "--question= ", "--context=a"], "question 0 is empty"),
        (["run", "nowhere.json"], "nowhere.json does not exist"),
        (["run", "answers.csv"], "questions are read from .json and .jsonl"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["answer", *arguments])
        said = capsys.readouterr().err
        assert stopped.value.code and words in said and len(said.splitlines()) == 1, said


def test_a_published_model_learns_to_answer(folder, capsys):
    """A masked model becomes one by a line of a config, and goes on from there with its head."""
    write(folder)
    data = names(folder)
    data.setup("fit")
    masked = family.bert_tiny(data.tokenizer.vocab_size, dim=16, heads=2, max_tokens=64)
    masked.tokenizer = data.tokenizer
    family.save_pretrained(masked, folder / "masked", format="bert")
    options = ["--model=tasks.QuestionAnswering", "--data=tasks.QuestionAnsweringData", "--data.root=.",
               "--data.max_tokens=40", "--data.stride=8", *SMALL]  # fmt: skip
    main(["fit", *options, "--model.pretrained=masked", "--run_folder=tuned"])
    tuned = family.load("tuned").model
    assert (
        tuned.pooling == "spans"
        and tuned.pooler is None
        and tuned.facts.task == "QuestionAnswering"
    )
    nn.init.normal_(tuned.class_head.weight)
    family.save_pretrained(tuned, folder / "saved", format="bert")
    config = json.loads((folder / "saved/config.json").read_text())
    assert config["architectures"] == ["BertForQuestionAnswering"]
    main(["fit", *options, "--model.pretrained=saved", "--model.lr=0", "--run_folder=more"])
    more = family.load("more").model
    assert torch.equal(more.class_head.weight, tuned.class_head.weight)
