"""Instruction tuning: its loss, what it reports, and the conversation that is held with what it trained."""

from __future__ import annotations

import io
import json
import sys
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

import family
import tasks
from family.losses.language_model import IGNORE
from tasks.chat_tuning import Asked, fitting, sampled
from tasks.cli import main
from tasks.data.chat_tuning import ChatTuningData
from tasks.errors import UserError
from tasks.runs.checkpoints import load_checkpoint

TALKS = [("what is red?", "a fox"), ("what is green?", "grass"), ("and blue?", "the sea")]
TINY = {"dim": 32, "depth": 1, "heads": 2, "ffn_dim": 64, "max_tokens": 128}
FIT = [
    *("fit", "--config=chat_tuning/shapes", "--data.root=.", "--data.tokenizer=char"),
    *(f"--model.model.init_args.config.{name}={value}" for name, value in TINY.items()),
    *("--data.context=128", "--data.batch_size=2", "--model.warmup_steps=2", "--model.lr=0.01"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    "--trainer.accelerator=cpu",
]


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing="callbacks" in options,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def steps(count, folder):
    ends = [f"--trainer.max_steps={count}", f"--trainer.val_check_interval={min(count, 40)}"]
    return [*ends, f"--run_folder={folder}"]


def write(folder, talks=TALKS, names=("train", "val", "test"), times=2):
    rows = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in talks
    ]
    rows += [rows[0] + rows[-1]]
    text = "".join(json.dumps({"messages": row}) + "\n" for row in rows * times)
    for name in names:
        (folder / f"{name}.jsonl").write_text(text)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run that knows its answers by heart, and its data."""
    folder = tmp_path_factory.mktemp("chat")
    write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main([*FIT, *steps(80, "run")])
    return folder


@pytest.fixture
def run(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return "run"


def metrics(place, kind="fit"):
    return json.loads(Path(place, f"metrics-{kind}.json").read_text())["metrics"]


def talk(monkeypatch, *lines):
    text = "".join(f"{line}\n" for line in lines).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


# --- What is learnt ---


def test_it_learns_to_answer_and_says_so(run):
    found = metrics(run)
    assert found["val/exact"] == 1 and found["val/accuracy"] == 1 and found["val/loss"] < 0.2
    assert found["val/perplexity"] == pytest.approx(2.718281828 ** found["val/loss"], rel=1e-4)
    shown = sorted(Path(run, "samples").iterdir())[-1].read_text()
    assert "user: what is red?\n    made: a fox\n    true: a fox" in shown
    assert "user: what is red?\nassistant: a fox\nuser: and blue?\n    made: the sea" in shown


def test_family_chat_holds_the_conversation(run, monkeypatch, capsys):
    talk(monkeypatch, "what is red?", "what is green?")
    main(["chat", run, "--temperature=0"])
    assert capsys.readouterr().out == "a fox\ngrass\n"
    prompt = "<|im_start|>user\nand blue?<|im_end|>\n<|im_start|>assistant\n"
    main(["generate", run, f"--prompt={prompt}", "--parse_special", "--temperature=0"])
    assert capsys.readouterr().out == f"{prompt}the sea\n"
    talk(monkeypatch, "what is a Ŵ?")
    with pytest.raises(SystemExit):
        main(["chat", run])
    assert "does not know the character 'Ŵ'" in capsys.readouterr().err


def test_a_run_is_a_language_model_that_stops_by_itself(run, tmp_path):
    loaded = load_checkpoint(run, "LanguageModeling")
    assert loaded.task == family.load(run).task == "LanguageModeling"
    model, tokenizer = loaded.model, loaded.tokenizer
    assert (
        set(model.generation.stop_ids) == tokenizer.stop_ids() and model.generation.trained_tokens
    )
    family.save_pretrained(model, tmp_path / "saved")
    ids = tokenizer.chat_ids([{"role": "user", "content": "what is red?"}])
    for one in (model, family.from_pretrained(tmp_path / "saved"), family.from_pretrained(run)):
        assert one.tokenizer.chat_template == tokenizer.chat_template
        new = one.generate(torch.tensor([ids]))  # by its own defaults alone
        assert one.tokenizer.decode(new[0].tolist()) == "a fox"


def test_a_test_says_it_of_each_conversation(run):
    task = tasks.ChatTuning.load_from_checkpoint(run)
    rows = []

    class Keep(pl.Callback):
        def on_test_batch_end(self, trainer, module, outputs, *rest):
            names = list(outputs)
            rows.extend(
                dict(zip(names, row, strict=True)) for row in zip(*outputs.values(), strict=True)
            )

    data = ChatTuningData(".", context=128, batch_size=3)
    data.use_assets(task.assets())
    runner = trainer(callbacks=[Keep()])
    found = runner.test(task, data, verbose=False)[0]
    assert found["test/exact"] == 1 and len(rows) == 8
    assert sorted(row["where"] for row in rows) == [f"test.jsonl line {i}" for i in range(1, 9)]
    for row in rows:
        assert row["made"] == row["true"] and row["exact"] == 1 and row["right"] == row["tokens"]
    total = sum(row["loss"] for row in rows) / sum(row["tokens"] for row in rows)
    assert found["test/loss"] == pytest.approx(total, abs=1e-4)


def test_a_run_goes_on_as_if_unbroken(tmp_path, monkeypatch):
    write(tmp_path, times=9)
    monkeypatch.chdir(tmp_path)

    def fit(ckpt_path=None):
        pl.seed_everything(0)
        data = ChatTuningData(".", tokenizer="char", context=128, batch_size=2)
        model = partial(family.gpt_nano, dim=16, depth=1, heads=2, max_tokens=128)
        task = tasks.ChatTuning(model, answers=0, schedule="constant", warmup_steps=0)
        keep = ModelCheckpoint("steps", "{step}", every_n_train_steps=1, save_top_k=-1)
        runner = trainer(max_steps=11, limit_val_batches=0, callbacks=[keep])
        runner.fit(task, data, ckpt_path=ckpt_path)
        assert len(data.loader("train")) == 8  # of an epoch
        return task.model.state_dict()

    whole = fit()
    for step in (3, 9):
        rest = fit(f"steps/step={step}.ckpt")
        assert all(torch.equal(value, rest[name]) for name, value in whole.items()), step


def test_a_run_trains_on_with_its_own_tokenizer_and_template(run, tmp_path, capsys):
    write(tmp_path, [("what is red?", "the sea")])
    over = ["--data.root", str(tmp_path), "--trainer.max_steps=1", "--trainer.val_check_interval=1"]
    fit = [
        "fit",
        "--model=tasks.ChatTuning",
        "--data=tasks.ChatTuningData",
        f"--model.pretrained={run}",
    ]
    lora = ["--model.lora.rank=2", '--model.lora.targets=["*.qkv"]', "--data.context=64"]
    more = [option for option in FIT if "--trainer" in option]
    main([*fit, *more, *over, *lora, f"--run_folder={tmp_path}/more"])
    before, after = (family.from_pretrained(one) for one in (run, tmp_path / "more"))
    assert after.tokenizer.to_json() == before.tokenizer.to_json()
    assert after.generation == before.generation  # which knows longer texts than these


def test_a_rule_judges_a_run_through_the_task_that_would_go_on_from_it(run, tmp_path):
    prompt = [{"role": "user", "content": "what is red?"}]
    rows = [{"prompt": prompt, "answer": answer} for answer in ("a fox", "the sea")]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    judge = [
        "--model=tasks.PolicyTuning",
        "--model.scorer=tasks.training.scorers.ExactAnswer",
        "--model.greedy=true",
        "--data=tasks.PromptData",
        f"--data.root={tmp_path}",
        "--trainer.accelerator=cpu",
    ]
    main(["test", *judge, f"--ckpt_path={run}", f"--run_folder={tmp_path}/judged"])
    assert metrics(tmp_path / "judged", "test")["test/reward"] == 0.5


# --- The loss ---


def test_packed_conversations_teach_what_each_by_itself_does(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    data = ChatTuningData(".", tokenizer="char", context=300, batch_size=9)
    data.setup("fit")
    torch.manual_seed(0)
    config = {**TINY, "max_tokens": 300, "position": "rotary", "causal": True}
    model = family.GPT(config=family.TransformerConfig(**config), **data.model_arguments).double()
    task = tasks.ChatTuning(model)
    task.model = model
    (batch,) = data.loader("train")
    assert len(batch["input_ids"]) < 8 and int(batch["documents"].max()) > 1
    task.loss(batch)["loss"].backward()
    packed = {name: value.grad.clone() for name, value in model.named_parameters()}
    loss = task.loss(batch)["loss"].detach()

    model.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    count = 0
    for one in data.conversations("train"):
        ids, labels = (torch.tensor(row[None], dtype=torch.long) for row in one[:2])
        wanted = labels[0] != IGNORE
        logs = model(ids)[0, wanted].log_softmax(-1)
        total = total - logs.gather(1, labels[0, wanted][:, None]).sum()
        count += int(wanted.sum())
    (total / count).backward()
    torch.testing.assert_close(loss, total.detach() / count, rtol=1e-12, atol=1e-12)
    for name, value in model.named_parameters():
        torch.testing.assert_close(packed[name], value.grad, rtol=1e-9, atol=1e-12)


# --- Answers ---


def test_answers_that_are_written_together_have_room():
    asked = [Asked([0] * size, tokens, i) for i, (size, tokens) in enumerate(
        [(2, 8), (9, 1), (9, 2), (3, 3), (10, 0), (4, 4)]
    )]  # fmt: skip
    groups = list(fitting(asked, 10))
    assert sorted(one.row for group in groups for one in group) == [0, 1, 3, 4, 5]
    for group in groups:
        assert max(len(one.ids) for one in group) + max(one.tokens for one in group) <= 10


@pytest.mark.parametrize(("answers", "asked"), [(0, 0), (3, 3), (4, 4), (99, 8)])
def test_so_many_answers_drawn_from_the_conversations(run, monkeypatch, answers, asked):
    task = tasks.ChatTuning.load_from_checkpoint(run, answers=answers)
    data = ChatTuningData(".", context=128, batch_size=3)
    data.use_assets(task.assets())
    seen = []
    monkeypatch.setattr(
        task, "answer", lambda batch, rows: seen.extend(batch["number"][i] for i in rows)
    )
    found = trainer().validate(task, data, verbose=False)[0]
    assert len(seen) == asked and "val/exact" not in found and found["val/accuracy"] == 1
    assert set(seen) == sampled(8, answers) <= set(range(8))


def test_answers_are_of_all_kinds_where_kinds_take_turns():
    kinds = [sum(number % 4 == kind for number in sampled(2000, 100)) for kind in range(4)]
    assert sum(kinds) == 100 and min(kinds) > 10


def test_an_answer_without_room_is_wrong(run, tmp_path):
    write(tmp_path, [("what is red?", "a fox"), ("what is green?", "grass " * 40)], ("val",), 1)
    task = tasks.ChatTuning.load_from_checkpoint(run)
    data = ChatTuningData(str(tmp_path), context=100, batch_size=4, train="val")
    data.use_assets(task.assets())
    assert trainer().validate(task, data, verbose=False)[0]["val/exact"] == pytest.approx(1 / 3)


def test_a_loader_of_ones_own(run):
    model = family.from_pretrained(run)
    ids = torch.tensor([model.tokenizer.chat_ids([{"role": "user", "content": "what is red?"}])])
    batch = (ids[:, :-1], ids[:, 1:])
    loader = torch.utils.data.DataLoader([batch], batch_size=None)
    found = trainer().test(tasks.ChatTuning(model), loader, verbose=False)[0]
    assert found.keys() == {"test/loss", "test/accuracy", "test/perplexity"}


def test_models_that_do_not_suit(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    data = ChatTuningData(".", tokenizer="char", context=100)
    lstm = tasks.ChatTuning(lambda vocab_size: family.LSTMLanguageModel(vocab_size, 8, 1))
    with pytest.raises(
        UserError, match="the packing of conversations needs a model that takes doc"
    ):
        trainer(max_steps=1).fit(lstm, data)
    short = tasks.ChatTuning(partial(family.gpt_nano, dim=16, depth=1, heads=2, max_tokens=64))
    with pytest.raises(UserError, match="data.context=100 is more than the model's max_tokens=64"):
        trainer(max_steps=1).fit(short, data)
    with pytest.raises(UserError, match="model.answers must be at least 0, not -1"):
        tasks.ChatTuning(answers=-1)
