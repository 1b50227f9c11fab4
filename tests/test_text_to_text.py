"""Text to text: scores by task, from pre-training to use, and one command for all that answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import sacrebleu
import torch
from torch import nn

import family
import tasks
from family.core.config import TransformerConfig
from tasks.cli import main
from tasks.data.span_corruption import SENTINELS
from tasks.data.tokenizers import SPECIALS, train_tokenizer
from tasks.errors import UserError
from tasks.training.finetuning import load_source
from tasks.training.text_scores import exact_match, made_scores, word_f1

ROWS = [("a red circle", "red"), ("two blue squares", "blue"), ("the star", "no colour at all")] * 4
STACK = {"dim": 16, "depth": 1, "heads": 2, "max_tokens": 64}
RELATIVE = {
    **STACK,
    "norm": "rmsnorm",
    "bias": False,
    "position": "relative",
    "attention_scale": 1.0,
}
RUN = [
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--trainer.limit_val_batches=1",
    "--trainer.max_steps=2",
    "--trainer.num_sanity_val_steps=0",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val", "test"):
        lines = ["text\tsummary", *("\t".join(row) for row in ROWS)]
        Path(f"{split}.tsv").write_text("".join(f"{line}\n" for line in lines))
    return tmp_path


def data_of(folder, **options):
    return tasks.TextToTextData(str(folder), **{"tokenizer": "char", "prefix": "say: ", **options})


MODELS = {
    "t5": lambda vocab_size, **more: family.T5(vocab_size, TransformerConfig(**RELATIVE), **more),
    "seq2seq": lambda vocab_size, **more: family.Seq2Seq(
        vocab_size, TransformerConfig(**STACK), **more
    ),
    "lstm": lambda vocab_size, **more: family.LSTMSeq2Seq(vocab_size, dim=16, depth=1, **more),
}


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **options,
    )


# --- Scores ---


def test_scores_of_answers_are_those_of_the_script():
    # What SQuAD's evaluate-v1.1.py gives.
    for made, true, same, shared in [
        ("The Denver Broncos!", "denver broncos", 1, 1.0),
        ("Denver", "the Denver Broncos", 0, 2 / 3),
        ("a red, red star", "red star", 0, 0.8),
        ("", "star", 0, 0.0),
        ("the", "a", 1, 1.0),
        ("12 stars", "twelve stars", 0, 0.5),
    ]:
        assert exact_match(made, true) == same
        assert word_f1(made, true) == pytest.approx(shared)
    pairs = [("a red circle there", "a red circle here"), ("the star", "star")]
    found = made_scores(pairs)
    assert (found["accuracy"], found["exact_match"]) == (0, 0.5)
    made, true = [p[0] for p in pairs], [p[1] for p in pairs]
    assert found["bleu"] == sacrebleu.corpus_bleu(made, [true]).score
    assert found["chrf"] == sacrebleu.corpus_chrf(made, [true]).score


class Says(nn.Module):
    """Writes the second half of what it reads."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(60, 60)

    def forward(self, source, target, source_mask=None):
        return self.table(target)

    def generate(self, source, source_mask=None, *, max_new_tokens, **options):
        self.most = max_new_tokens
        return source[:, source.shape[1] // 2 :]


def test_each_task_is_scored_by_its_name_and_all_by_their_mean(folder):
    data = tasks.TextToTextData(
        tasks={"count": tasks.TextTask(), "turn": tasks.TextTask()}, examples=40, tokenizer="char"
    )
    task = tasks.TextToText(Says())
    made, rows = {}, []

    class Keep(pl.Callback):
        def on_test_batch_end(self, trainer, task, outputs, batch, index):
            table = [
                dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)
            ]
            rows.extend(table)

    found = trainer(callbacks=[Keep()]).test(task, data, verbose=False)[0]
    for row in rows:
        made.setdefault(row["task"], []).append((row["made"], row["true"]))
    assert {name: len(pairs) for name, pairs in made.items()} == {"count": 100, "turn": 100}
    by_hand = {name: made_scores(pairs) for name, pairs in made.items()}
    for score in ("exact_match", "f1", "accuracy", "chrf"):
        for name in made:
            assert found[f"test/{name}/{score}"] == pytest.approx(by_hand[name][score], rel=1e-5)
        mean = sum(scores[score] for scores in by_hand.values()) / 2
        assert found[f"test/{score}"] == pytest.approx(mean, rel=1e-5)
    # Of numbers there is no BLEU, which would be 0 of right ones too.
    assert found["test/bleu"] == found["test/turn/bleu"] == pytest.approx(by_hand["turn"]["bleu"])
    assert "test/count/bleu" not in found and "bleu" not in made_scores([("3", "3")])
    assert len(task.samples) == 6 and by_hand["turn"]["f1"] > by_hand["count"]["f1"]
    predicted = trainer().predict(task, data)
    assert {row["task"] for batch in predicted for row in batch} == {"count", "turn"}
    assert {*predicted[0][0]} == {"task", "line", "source", "made"}


def test_of_one_task_the_scores_stand_alone(folder):
    task, data = tasks.TextToText(Says()), data_of(folder)
    found = trainer().test(task, data, verbose=False)[0]
    assert not [name for name in found if name.count("/") > 1]
    # Nobody said how long an answer is: by the length of its text.
    assert data.max_new_tokens is None and task.model.most == 2 * len("say: two blue squares ") + 10


# --- Training and use ---


@pytest.mark.parametrize("kind", MODELS)
def test_it_learns_by_heart_and_says_it(folder, kind):
    pl.seed_everything(0)
    lr = 3e-2 if kind == "lstm" else 1e-2
    task = tasks.TextToText(MODELS[kind], lr=lr, warmup_steps=5, schedule="constant")
    data = data_of(folder)
    epochs = 110 if kind == "seq2seq" else 60
    runner = trainer(max_epochs=epochs, check_val_every_n_epoch=epochs)
    runner.fit(task, data)
    assert runner.callback_metrics["val/accuracy"] == 1
    assert task.samples[0].startswith("say: ") and "    made: " in task.samples[0]
    assert data.max_new_tokens == len("no colour at all") + 11
    runner.save_checkpoint(folder / "best.ckpt")
    loaded = family.load(folder / "best.ckpt")
    assert loaded.task == "TextToText" and loaded.model.generation.max_new_tokens == 27
    texts = [f" say: {text}" for text, _ in ROWS[:3]]
    assert loaded.predict([*texts, " "]) == [*(answer for _, answer in ROWS[:3]), ""]
    again = tasks.TextToText.load_from_checkpoint(folder / "best.ckpt")
    assert trainer().test(again, data, verbose=False)[0]["test/accuracy"] == 1


def published(folder, **more):
    """A T5 in the published layout, with a tokenizer that is like the published."""
    tokenizer = train_tokenizer(
        "unigram", [text for row in ROWS for text in row], 150, specials=(*SPECIALS, *SENTINELS)
    )
    torch.manual_seed(0)
    sizes = {"dim": 16, "depth": 2, "heads": 2, "head_dim": 8, "ffn_dim": 24, **more}
    model = family.t5_v1_1_small(tokenizer.vocab_size, **sizes)
    model.tokenizer = tokenizer
    family.save_pretrained(model, folder / "source", format="t5")
    return model


def test_from_pre_training_to_use_by_one_line_each(folder, capsys, monkeypatch):
    Path("texts.txt").write_text("\n".join(text for row in ROWS for text in row) * 9)
    model = json.dumps({"class_path": "family.T5", "init_args": {"config": RELATIVE}})
    main([
        "fit", "--model=tasks.SpanCorruption", f"--model.model={model}",
        "--data=tasks.SpanCorruptionData", "--data.root=texts.txt", "--data.context=20",
        "--data.vocab_size=380", "--run_folder=before", *RUN,
    ])  # fmt: skip
    given = {"say": {"root": ".", "prefix": "say: "}, "count": {"weight": 2}}
    main([
        "fit", "--model=tasks.TextToText", "--model.pretrained=before", "--model.lr=0",
        "--data=tasks.TextToTextData", f"--data.tasks={json.dumps(given)}", "--data.examples=20",
        "--run_folder=after", *RUN,
    ])  # fmt: skip
    before, after = (family.from_pretrained(run) for run in ("before", "after"))
    for name, value in after.state_dict().items():
        assert torch.equal(value, before.state_dict()[name])
    assert after.bos_id == before.bos_id == after.tokenizer.pad_id
    assert after.tokenizer.token_to_id("<extra_id_99>") is not None
    capsys.readouterr()
    main(["generate", "after", "--prompt=count: two stars", "--max_new_tokens=5"])
    said = capsys.readouterr().out
    assert said.removesuffix("\n") == family.load("after").model.tokenizer.decode(
        after.generate(torch.tensor([encoded(after, "count: two stars")]), max_new_tokens=5)[
            0
        ].tolist()
    )
    monkeypatch.chdir(Path("..").resolve())  # a run knows its sources wherever it is asked
    main(["test", str(folder / "after"), "--trainer.limit_test_batches=1", *RUN[:3]])
    assert "test/count/exact_match" in capsys.readouterr().out.replace("\u2026", "")
    with pytest.raises(SystemExit):
        main(["generate", str(folder / "before"), "--prompt=count: two stars"])
    said = (
        "was trained for SpanCorruption, but this command needs LanguageModeling or TextToText or"
    )
    assert said in capsys.readouterr().err


def encoded(model, text, **more):
    return [*model.tokenizer.encode(text, **more), model.tokenizer.eos_id]


def test_a_published_model_answers_and_is_trained_on(folder, capsys):
    model = published(folder)
    task, data = tasks.TextToText(pretrained="source"), data_of(folder)
    load_source(task, data, "source", training=True)
    trainer(max_steps=2, limit_val_batches=1).fit(task, data)
    batch = next(iter(data.train_dataloader()))
    assert (batch["target"][:, 0] == 0).all() and data.assets()["start_id"] == 0
    prompt = "say: a red <extra_id_0> circle"
    for options, said, more in [
        ([], False, {}),
        (["--parse_special"], True, {}),
        (["--beams=3", "--num=2"], False, {"beams": 3, "num": 2}),
    ]:
        main(["generate", "source", f"--prompt={prompt}", "--max_new_tokens=6", *options])
        ids = torch.tensor([encoded(model, prompt, parse_special=said)])
        rows = model.eval().generate(ids, max_new_tokens=6, stop_ids=(2,), pad_id=0, **more)
        expected = "".join(f"{model.tokenizer.decode(row)}\n" for row in rows.tolist())
        assert capsys.readouterr().out == expected
    drawn = ["--temperature=1.5", "--num=3", "--max_new_tokens=9"]
    main(["generate", "source", "--prompt=say", *drawn])
    first = capsys.readouterr().out
    assert len({*first.split("\n")}) > 2
    main(["generate", "source", "--prompt=say", *drawn])
    assert capsys.readouterr().out == first
    line = max(first.split("\n"), key=len)
    stop = line[len(line) // 2 :][:2]
    main(["generate", "source", "--prompt=say", *drawn, f"--stop={stop}"])
    assert stop not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["generate", "source", "--prompt= "])
    assert "the prompt is empty" in capsys.readouterr().err
    loaded = family.load(folder / "source", task="TextToText")
    assert loaded.predict(["say: a star"], batch_size=1) == loaded.predict(["say: a star", "b"])[:1]


def test_answers_become_as_long_as_before_where_a_run_is_trained_on(folder):
    data = data_of(folder)
    data.use_assets({**data.assets(), "generation": {"max_new_tokens": 99, "eos_token_id": 2}})
    data.setup("fit")
    assert data.assets()["generation"] == {"max_new_tokens": 99, "eos_token_id": 2}


def test_members_of_other_tasks_are_refused(folder):
    model = family.gpt_nano(160, dim=16, depth=1, heads=2)
    model.tokenizer = train_tokenizer("char", ["abc"])
    family.save_pretrained(model, folder / "gpt")
    with pytest.raises(
        UserError, match="is a GPT, made for LanguageModeling, but this needs TextTo"
    ):
        load_source(tasks.TextToText(pretrained="gpt"), data_of(folder), "gpt", training=True)
