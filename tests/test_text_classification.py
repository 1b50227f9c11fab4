"""Text classification: what it learns and reports, and the command that uses what was trained."""

from __future__ import annotations

import io
import json
import sys

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn
from torchmetrics.functional.classification import multiclass_f1_score

from tasks.cli import main
from tasks.data.text_classification import TextClassificationData
from tasks.errors import UserError
from tasks.text_classification import TextClassification

SMALL = [
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.limit_predict_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    "--data.examples=200",
    "--data.batch_size=8",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Words(nn.Module):
    """Somebody else's model: the mean of word vectors."""

    def __init__(self, vocab_size, num_classes):
        super().__init__()
        self.table = nn.Embedding(vocab_size, 16)
        self.head = nn.Linear(16, num_classes)

    def forward(self, input_ids, mask):
        assert input_ids.dtype == torch.long and mask.dtype == torch.bool
        weights = mask / mask.sum(1, keepdim=True)
        return self.head((self.table(input_ids) * weights[..., None]).sum(1))


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.fixture
def reviews(folder):
    """Sentences whose class one word tells, most of them bad."""
    rows = [f"the {w} film number {i}\t{c}" for i in range(20) for w, c in WORDS]
    for split in ("train", "val", "test"):
        (folder / f"{split}.tsv").write_text("\n".join(rows))
    return TextClassificationData(str(folder), vocab_size=300, batch_size=16)


WORDS = [("fine", "good"), ("dull", "bad"), ("slow", "bad"), ("loud", "bad")]


def test_any_model_of_the_contract_learns(reviews):
    pl.seed_everything(0)
    task = TextClassification(Words, lr=0.05, warmup_steps=5, label_smoothing=0.1)
    runner = trainer(max_epochs=8)
    runner.fit(task, reviews)
    metrics = runner.callback_metrics
    assert metrics["val/accuracy"] == metrics["val/f1_macro"] == 1
    assert len(task.samples) == 8
    text, made, true = task.samples[0].split("\n    ")
    assert text.startswith("the ") and made.split()[1] == true.split()[1]
    made = [row for batch in runner.predict(task, reviews) for row in batch]
    truth = [line.split("\t") for line in (reviews.root / "test.tsv").read_text().split("\n")]
    assert len(made) == len(truth)
    for row in made:
        assert [row["text"], row["label"]] == truth[row["line"]] and 0.5 < row["score"] <= 1


def test_f1_is_of_the_whole_split_and_blind_to_how_common_a_class_is(reviews):
    class Always(Words):
        def forward(self, input_ids, mask):
            return torch.tensor([1.0, 0.0]).expand(len(input_ids), 2) + 0 * self.head.bias

    found = trainer().validate(TextClassification(Always), reviews, verbose=False)[0]
    assert found["val/accuracy"] == pytest.approx(0.75)
    made, true = torch.zeros(80, dtype=int), torch.tensor([1, 0, 0, 0] * 20)
    assert found["val/f1_macro"] == pytest.approx(
        float(multiclass_f1_score(made, true, 2, average="macro"))
    )
    assert found["val/f1_macro"] == pytest.approx(6 / 7 / 2)


def test_sentences_that_the_model_has_no_positions_for(reviews):
    class Short(Words):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.config = type("Config", (), {"max_tokens": 100})

    with pytest.raises(UserError, match=r"data.max_tokens=128 is more than .* max_tokens=100"):
        trainer(max_steps=1).fit(TextClassification(Short), reviews)


# --- The command -----------------------------------------------------------------------------


def fit(folder, *more):
    main(["fit", "--config=text_classification/shapes", "--run_folder=run", *SMALL, *more])
    return json.loads((folder / "run/metrics-fit.json").read_text())


def test_from_fit_to_classify(folder, monkeypatch, capsys):
    metrics = fit(folder)["metrics"]
    assert 0 <= metrics["val/f1_macro"] <= 1 and 0 <= metrics["val/accuracy"] <= 1
    assert "true: " in (folder / "run/samples/step-000002.txt").read_text()
    capsys.readouterr()
    texts = ["the small red star is above the large blue circle", "a cross"]
    main(["classify", "run", *texts, "--top=8"])
    said = capsys.readouterr().out
    for text, line in zip(texts, said.splitlines(), strict=True):
        name, classes = line.split("\t")
        assert name == text
        chances = [float(part.split()[-1]) for part in classes.split(", ")]
        assert len(chances) == 8 and sum(chances) == pytest.approx(1, abs=0.01)
        assert chances == sorted(chances, reverse=True)
    # A line at a time from standard input; an empty one stays empty.
    typed = f"{texts[0]}\n\n{texts[1]}\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))
    main(["classify", "run", "--top=8"])
    assert capsys.readouterr().out == said.replace("\n", "\n\n", 1)
    main(["classify", "run", "star " * 500])  # longer than the model has positions
    assert capsys.readouterr().out.count("\n") == 1
    config = ["--config=run/config.yaml", "--ckpt_path=run", *SMALL]
    main(["test", *config, "--run_folder=tested"])
    record = json.loads((folder / "tested/metrics-test.json").read_text())
    assert {"test/accuracy", "test/f1_macro", "test/loss"} <= record["metrics"].keys()
    main(["predict", *config, "--run_folder=predicted"])
    rows = (folder / "predicted/predictions.jsonl").read_text().splitlines()
    assert json.loads(rows[0]).keys() == {"line", "text", "label", "score", "probabilities"}


@pytest.mark.slow
def test_a_resumed_run_goes_on_as_if_it_was_not_stopped(folder):
    config = ["fit", "--config=text_classification/shapes", *SMALL, "--model.schedule=constant"]
    main([*config, "--trainer.max_steps=5", "--run_folder=whole"])
    main([*config, "--trainer.max_steps=3", "--run_folder=half"])
    more = ["--trainer.max_steps=5", "--ckpt_path=half/checkpoints/last.ckpt"]
    main([*config, *more, "--run_folder=rest"])
    whole, half, rest = (
        torch.load(folder / run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in ("whole", "half", "rest")
    )
    assert any(not torch.equal(whole[name], half[name]) for name in whole)
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


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
    said = refused(["detect", "run", "x.png"], capsys)
    assert "x.png does not exist" in said
    Image.new("RGB", (8, 8)).save("a.png")
    said = refused(["detect", "run", "a.png"], capsys)
    assert "was trained for TextClassification, but this command needs Detection" in said
    assert "is not UTF-8" in refused(["classify", "run", "a \udcff"], capsys)
    assert "--top must be at least 1" in refused(["classify", "run", "a", "--top=0"], capsys)
    said = refused(
        ["fit", "--config=text_classification/sst2", "--data.root=nowhere", *SMALL], capsys
    )
    assert "data.root nowhere does not exist" in said


@pytest.mark.slow
def test_a_model_of_pictures_wants_pictures(folder, capsys):
    config = ["fit", "--config=image_classification/shapes", "--run_folder=run", *SMALL]
    main(config)
    capsys.readouterr()
    assert "give files, or folders of them" in refused(["classify", "run"], capsys)
    assert "a text does not exist" in refused(["classify", "run", "a text"], capsys)
