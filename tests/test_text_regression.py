"""Numbers of texts and of pairs: what is learnt and reported, published heads, and the command."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from scipy import stats
from torch import nn

import family
from family.inputs.text_pairs import with_pairs
from tasks.cli import main
from tasks.commands import classify
from tasks.data import shapes
from tasks.data.text_regression import TextRegressionData
from tasks.data.tokenizers import train_tokenizer
from tasks.errors import UserError
from tasks.text_regression import TextRegression, correlations

SMALL = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--data.examples=40",
    "--data.batch_size=8",
]
STACK = ["--model.model.config.depth=1"]
PAIR = ["two small red stars are above a large blue circle", "how many are at the left or on top?"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys, *arguments):
    capsys.readouterr()
    main([*map(str, arguments)])
    return capsys.readouterr().out


def refused(capsys, *arguments):
    with pytest.raises(SystemExit):
        said(capsys, *arguments)
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_correlations_are_scipys_with_ties():
    random = np.random.default_rng(0)
    for count in (2, 7, 100):
        true, made = random.integers(0, 6, count), random.integers(0, 9, count) / 3
        true[:2], made[:2] = (0, 1), (1, 3)
        found = correlations(true.tolist(), made.tolist())
        ranks = [stats.rankdata(side) for side in (true, made)]
        assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
        assert found["spearman"] == pytest.approx(stats.spearmanr(true, made).statistic)
        assert found["pearson"] == pytest.approx(stats.pearsonr(true, made).statistic)
    for constant in ([], [1.0]), ([2.0] * 3, [1.0, 2.0, 3.0]), ([1.0, 2.0], [0.5, 0.5]):
        assert correlations(*constant) == {"spearman": 0.0, "pearson": 0.0}


class Words(nn.Module):
    """Somebody else's model: the mean of word vectors."""

    def __init__(self, vocab_size, num_classes):
        super().__init__()
        assert num_classes == 1
        self.table, self.head = nn.Embedding(vocab_size, 16), nn.Linear(16, 1)
        nn.init.zeros_(self.head.weight)

    def forward(self, input_ids, mask):
        return self.head(
            (self.table(input_ids) * (mask / mask.sum(1, keepdim=True))[..., None]).sum(1)
        )


def trainer(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **options)


@pytest.fixture
def graded(folder):
    rows = [f"the {w} film number {i},{g + i % 3}" for i in range(20) for w, g in GRADES]
    for split in ("train", "val", "test"):
        (folder / f"{split}.csv").write_text("text,label\n" + "\n".join(rows))
    return TextRegressionData(str(folder), vocab_size=300, batch_size=16)


GRADES = [("fine", 90), ("dull", 70), ("slow", 50), ("loud", 30)]


def test_any_model_of_the_contract_learns(graded):
    pl.seed_everything(0)
    task = TextRegression(Words, lr=0.1, warmup_steps=5)
    runner = trainer(max_epochs=15)
    runner.fit(task, graded)
    metrics = runner.callback_metrics
    assert metrics["val/spearman"] > 0.9 and metrics["val/pearson"] > 0.9
    text, made, true = task.samples[0].split("\n    ")
    assert text.startswith("the ") and abs(float(made.split()[1]) - float(true.split()[1])) < 40
    (tested,) = runner.test(task, graded, verbose=False)
    made = [row for batch in runner.predict(task, graded) for row in batch]
    made.sort(key=lambda row: row["line"])
    values, truth = [row["value"] for row in made], graded.labels("test")
    assert tested["test/spearman"] == pytest.approx(
        stats.spearmanr(values, truth).statistic, abs=1e-5
    )
    assert tested["test/pearson"] == pytest.approx(
        stats.pearsonr(values, truth).statistic, abs=1e-5
    )
    worst = task.tables["worst"]
    errors = [abs(row["made"] - row["true"]) for row in worst]
    assert errors == sorted(errors, reverse=True) and worst[0]["text"].startswith("the ")
    assert errors[0] == pytest.approx(np.abs(np.array(values) - truth).max(), abs=1e-3)


def test_a_fresh_head_begins_at_the_mean(graded):
    task = TextRegression(Words, lr=0.0, warmup_steps=0)
    trainer(max_steps=1, limit_val_batches=0).fit(task, graded)
    assert float(task.model.head.bias) == pytest.approx(graded.mean()) == pytest.approx(61, abs=0.5)
    begun = TextRegression(task.model, lr=0.0, warmup_steps=0)
    with torch.no_grad():
        task.model.head.weight.fill_(1)
        task.model.head.bias.fill_(7)
    trainer(max_steps=1, limit_val_batches=0).fit(begun, graded)
    assert begun.model.head.bias == 7  # it has learnt something already


def test_a_model_of_several_numbers_is_refused():
    task = TextRegression(family.bert_tiny(20, dim=8, heads=2, num_classes=2, masked_head=False))
    task.adapt_model()
    batch = {"input_ids": torch.zeros(3, 4, dtype=torch.long), "labels": torch.zeros(3)}
    with pytest.raises(UserError, match=r"gives \(3, 2\) of 3 texts, but .* set num_classes=1"):
        task.loss(batch)


def test_from_fit_to_the_command(folder, capsys):
    main(["fit", "--config=text_regression/shapes", "--run_folder=run", *SMALL, *STACK])
    metrics = json.loads((folder / "run/metrics-fit.json").read_text())["metrics"]
    assert -1 <= metrics["val/spearman"] <= 1 and metrics["val/loss"] > 0
    sample = (folder / "run/samples/step-000002.txt").read_text()
    assert "true: " in sample and "\nhow many are " in sample
    line = said(capsys, "classify", "run", PAIR[0], "--pair", PAIR[1])
    loaded = family.load("run")
    (value,) = loaded.predict(PAIR[:1], pairs=PAIR[1:])
    assert line == f"{PAIR[0]}\t{PAIR[1]}\t{value:.3f}\n"
    (folder / "a.csv").write_text("a,b\n" + ",".join(PAIR) + "\n" + ",".join(PAIR[::-1]) + "\n")
    call = ["classify", "run", "a.csv", "--column", "a", "--pair_column", "b", "--format", "jsonl"]
    rows = [json.loads(row) for row in said(capsys, *call).splitlines()]
    assert rows[0] == {
        "file": "a.csv",
        "line": 2,
        "text": PAIR[0],
        "pair": PAIR[1],
        "value": rows[0]["value"],
    }
    wanted = loaded.predict(PAIR, pairs=PAIR[::-1])
    assert [row["value"] for row in rows] == pytest.approx(wanted, abs=1e-5)
    call[4:7:2] = "0", "1"
    assert len(said(capsys, *call).splitlines()) == 3  # by number, the first line is a pair too
    config = ["--config=run/config.yaml", "--ckpt_path=run", *SMALL]
    main(["test", *config, "--run_folder=tested"])
    record = json.loads((folder / "tested/metrics-test.json").read_text())
    assert {"test/spearman", "test/pearson", "test/loss"} <= record["metrics"].keys()
    main(["predict", *config, "--run_folder=predicted", "--trainer.limit_predict_batches=1"])
    rows = (folder / "predicted/predictions.jsonl").read_text().splitlines()
    assert json.loads(rows[0]).keys() == {"line", "text", "pair", "value"}

    # One text alone, or what is no pair.
    assert "reads pairs of texts, but one text alone" in refused_by(loaded, PAIR)
    assert "'a' stands alone: give --pair" in refused(capsys, "classify", "run", "a")
    assert "1 text but 2 of --pair" in refused(
        capsys, "classify", "run", "a", "--pair=b", "--pair=c"
    )
    assert "give texts with --pair" in refused(capsys, "classify", "run")
    (folder / "a.txt").write_text("a\n")
    assert "a.txt has single texts" in refused(capsys, "classify", "run", "a.txt")
    (folder / "b.csv").write_text("text\na\n")
    assert "b.csv has single texts: --pair_column" in refused(capsys, "classify", "run", "b.csv")


def refused_by(loaded, texts, **options):
    with pytest.raises(ValueError) as caught:
        loaded.predict(texts, **options)
    return str(caught.value)


@pytest.mark.slow
def test_pairs_of_classes(folder, capsys, monkeypatch):
    config = [*SMALL, *STACK, "--data.examples=300"]  # in which each answer is once
    main(["fit", "--config=text_classification/shapes_pairs", "--run_folder=run", *config])
    loaded = family.load("run")
    (row,) = loaded.predict(PAIR[:1], pairs=PAIR[1:])
    line = said(capsys, "classify", "run", PAIR[0], "--pair", PAIR[1], "--top=1")
    assert line == f"{PAIR[0]}\t{PAIR[1]}\t{row['label']} {row['score']:.3f}\n"
    assert {*row["probabilities"]} == {*shapes.SHAPES, *shapes.COLOURS, *shapes.SIZES}
    main(["test", "--config=run/config.yaml", "--ckpt_path=run", *config, "--run_folder=tested"])
    worst = (folder / "tested/test").rglob("worst*")
    assert all("pair" in file.read_text().split("\n")[0] for file in worst)
    # A model of single texts takes no pair.
    single = dataclasses.replace(loaded, assets={**loaded.assets, "pairs": False})
    assert "reads single texts, but a second text" in refused_by(single, PAIR, pairs=PAIR)
    monkeypatch.setattr(classify, "open_model", lambda *given: single)
    message = refused(capsys, "classify", "run", "a", "--pair=b")
    assert "reads single texts, but a second text is given" in message


# --- Published heads ---


def test_their_regression_is_ours_and_is_written_back_so(folder, capsys):
    transformers = pytest.importorskip("transformers")
    tokenizer = with_pairs(train_tokenizer("bpe", PAIR, 300))
    config = transformers.BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=20, num_labels=1, problem_type="regression",
    )  # fmt: skip
    theirs = transformers.BertForSequenceClassification(config).eval()
    theirs.save_pretrained("theirs")
    ours = family.from_pretrained("theirs")
    ours.tokenizer = tokenizer
    family.save_pretrained(ours, "back", format="bert")
    written = json.loads((folder / "back/config.json").read_text())
    assert written["problem_type"] == "regression" and len(written["id2label"]) == 1
    again = transformers.AutoModelForSequenceClassification.from_pretrained("back").eval()
    encoded = transformers.AutoTokenizer.from_pretrained("back")(
        *PAIR, return_tensors="pt", return_token_type_ids=True
    )
    loaded = family.load("back")
    assert loaded.task == "TextRegression"
    (value,) = loaded.predict(PAIR[:1], pairs=PAIR[1:])
    torch.testing.assert_close(
        torch.tensor([[value]]), again(**encoded).logits, rtol=1e-4, atol=1e-6
    )
    line = said(capsys, "classify", "back", PAIR[0], "--pair", PAIR[1])
    assert line.endswith(f"\t{value:.3f}\n")

    # Trained on, its head stays; for classes, and of classes for numbers, it starts afresh.
    same = family.from_pretrained("back", num_classes=1, task="TextRegression")
    assert torch.equal(same.class_head.weight, ours.class_head.weight)
    other = family.from_pretrained("back", num_classes=3)
    assert other.class_head.weight.shape[0] == 3 and other.pooler is not None
    assert other.facts.task == "TextClassification"
    family.save_pretrained(other, "classes", format="bert")
    assert "problem_type" not in json.loads((folder / "classes/config.json").read_text())
    fresh = family.from_pretrained("classes", num_classes=1, task="TextRegression")
    assert fresh.facts.task == "TextRegression" and not fresh.class_head.weight.any()
    written |= {"id2label": {"0": "a", "1": "b"}}
    (folder / "back/config.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match="problem_type='regression' of 2 labels is not supported"):
        family.from_pretrained("back")
    call = ["fit", "--model=tasks.TextRegression", "--model.pretrained=classes", "--run_folder=run"]
    main([*call, "--data=tasks.TextRegressionData", "--data.max_tokens=40", *SMALL])
    assert family.load("run").task == "TextRegression"
