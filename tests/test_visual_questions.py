"""Questions about pictures: the data, what is reported, and the command that uses what was trained."""

from __future__ import annotations

import json

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import nn

import family
from tasks.cli import main
from tasks.data.visual_questions import VisualQuestionsData
from tasks.errors import UserError
from tasks.visual_questions import VisualQuestions


def folder(root, rows, splits=("train", "val")):
    (root / "images").mkdir()
    for i in range(4):
        Image.new("RGB", (16, 16), (60 * i, 0, 0)).save(root / "images" / f"{i}.png")
    for split in splits:
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(root)


def asked(i, question="what is it?", answer="red", **more):
    return {"image": f"{i}.png", "question": question, "answer": answer, **more}


class Colour(nn.Module):
    """Knows an answer by the picture's brightness."""

    def __init__(self, vocab_size, num_classes, image_size):
        super().__init__()
        self.head = nn.Linear(1, num_classes)

    def forward(self, pixel_values, input_ids, mask):
        return self.head(pixel_values.mean((1, 2, 3))[:, None])


def test_answers_are_classes_in_the_order_of_how_often_they_are_given(tmp_path):
    rows = [asked(0, answer="b"), asked(1, answer="a"), asked(2, answer=2), asked(3, answer="b")]
    data = VisualQuestionsData(folder(tmp_path, rows), tokenizer="char", batch_size=4)
    data.setup("fit")
    assert data.classes == ["b", "2", "a"]
    batch = next(iter(data.val_dataloader()))
    assert batch["labels"].tolist() == [0, 2, 1, 0] and batch["answer"] == ["b", "a", "2", "b"]
    assert batch["pixel_values"].shape == (4, 3, 48, 48) and batch["line"] == [0, 1, 2, 3]
    assert data.model_arguments["num_classes"] == 3


def test_evaluation_takes_no_other_question_in_place_of_a_damaged_picture(tmp_path):
    root = folder(tmp_path, [asked(i) for i in range(4)])
    file = tmp_path / "images/1.png"  # a header that can be read, and then nothing
    Image.effect_noise((40, 40), 90).convert("RGB").save(file)
    file.write_bytes(file.read_bytes()[:-500])
    data = VisualQuestionsData(root, tokenizer="char", batch_size=4, on_bad="skip")
    data.setup("fit")
    assert next(iter(data.val_dataloader()))["file"] == ["0.png", "2.png", "3.png"]
    assert len(next(iter(data.train_dataloader()))["file"]) == 4


def test_each_half_can_be_left_out(tmp_path):
    root = folder(tmp_path, [asked(i, question="abc"[: i + 1] * 2) for i in range(3)])
    both, *halves = (
        next(iter(data.val_dataloader()))
        for data in (
            VisualQuestionsData(root, tokenizer="char", without=without)
            for without in (None, "picture", "question")
        )
    )
    assert not halves[0]["pixel_values"].any()
    assert torch.equal(halves[0]["input_ids"], both["input_ids"])
    assert torch.equal(halves[1]["pixel_values"], both["pixel_values"])
    assert halves[1]["input_ids"].shape == (3, 2) and both["input_ids"].shape == (3, 8)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (asked(0, question=""), r"line 2 needs image, question and answer, .* question is ''"),
        ({"image": "0.png", "question": "what?"}, "line 2 needs .* answer is None"),
        (asked(7), r"7.png does not exist"),
        (
            asked(0, question="x" * 40),
            r"line 2: the question 'x+' has 42 tokens, over data.max_tokens=32",
        ),
    ],
)
def test_what_is_wrong_is_said_before_training(tmp_path, row, said):
    root = folder(tmp_path, [asked(0), row])
    with pytest.raises(UserError, match=said):
        VisualQuestionsData(root, tokenizer="char").setup("fit")


def test_an_answer_outside_the_vocabulary(tmp_path):
    root = folder(tmp_path, [asked(0, answer="read"), asked(1, answer="red")], ("val",))
    (tmp_path / "train.jsonl").write_text(json.dumps(asked(0)) + "\n")
    with pytest.raises(
        UserError, match=r"val.jsonl line 1 has the answer 'read'.*Did you mean 'red'"
    ):
        VisualQuestionsData(root, tokenizer="char").setup("fit")
    data = VisualQuestionsData(root, tokenizer="char", unknown_answers="wrong")
    data.setup("fit")
    assert next(iter(data.val_dataloader()))["labels"].tolist() == [-100, 0]


def test_one_file_is_divided_by_pictures(tmp_path):
    rows = [asked(i % 4, question=f"what is it {i}?") for i in range(40)]
    root = folder(tmp_path, rows, ("all",))
    data = VisualQuestionsData(root, tokenizer="char", val_fraction=0.3, test_fraction=0.3)
    files = [{row.file for row in data.rows(split)} for split in ("train", "val", "test")]
    assert not files[0] & files[1] and not files[0] & files[2] and not files[1] & files[2]


def test_accuracy_by_kind_and_answers_that_are_unknown(tmp_path, monkeypatch):
    rows = [asked(i, answer="dark" if i < 2 else "light", kind="ab"[i % 2]) for i in range(4)]
    root = folder(tmp_path, rows, ("train",))
    wrong = asked(3, answer="dim", kind="b")
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, wrong]))
    data = VisualQuestionsData(
        root, tokenizer="char", batch_size=4, unknown_answers="wrong", image_size=(16, 16)
    )
    pl.seed_everything(0)
    task = VisualQuestions(Colour, lr=0.1, schedule="constant", warmup_steps=0)
    trainer = pl.Trainer(
        max_epochs=150,
        check_val_every_n_epoch=150,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, data)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["val/accuracy"] == pytest.approx(4 / 5)
    assert metrics["val/accuracy_a"] == 1 and metrics["val/accuracy_b"] == pytest.approx(2 / 3)
    assert metrics["val/loss"] < 0.5


def test_a_run_answers_about_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(
        [
            "fit",
            "--config=visual_questions/shapes",
            "--trainer.max_steps=2",
            "--trainer.val_check_interval=2",
            "--trainer.limit_val_batches=1",
            "--trainer.enable_progress_bar=false",
            "--trainer.accelerator=cpu",
            "--data.examples=400",
            "--data.batch_size=8",
            "--run_folder=run",
        ]
    )
    Image.new("RGB", (60, 60), (255, 0, 0)).save("one.png")
    capsys.readouterr()
    questions = ["is there a circle?", "where is the star?"]
    main(["ask", "run", "one.png", *(f"--question={q}" for q in questions), "--format=jsonl"])
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["question"] for one in said] == questions
    loaded = family.load("run")
    assert loaded.predict(["one.png"] * 2, questions)[1]["answer"] == said[1]["answer"]
    with pytest.raises(ValueError, match="1 pictures but 2 questions"):
        loaded.predict(["one.png"], questions)
    with pytest.raises(ValueError, match="has 42 tokens, more than the 16"):
        loaded.predict(["one.png"], [" ".join(["red"] * 40)])
    main(["test", "run", "--trainer.limit_test_batches=1"])
    assert "test/accuracy" in capsys.readouterr().out
