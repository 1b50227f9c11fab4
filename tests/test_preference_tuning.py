"""Preference tuning: what each loss finds, where the reference comes from, and that it stays what it was."""

from __future__ import annotations

import json

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

import family
from family.adapt.lora import add_lora
from family.losses.language_model import IGNORE
from family.losses.preferences import dpo_loss
from tasks.cli import main
from tasks.data.preferences import PreferenceData
from tasks.errors import UserError
from tasks.preference_tuning import PreferenceTuning
from tasks.training.dropout import without_dropout

STACK = {"dim": 16, "depth": 1, "heads": 2, "causal": True, "position": "rotary"}
LOSSES = ("dpo", "ipo", "simpo")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, **options},
    )


def gpt(vocab_size, **stack):
    return family.GPT(vocab_size, family.TransformerConfig(**{**STACK, "max_tokens": 64, **stack}))


def data(folder, **options):
    """Letters: an "a" is better than a "b", whatever the prompt."""
    for split, first in (("train", 0), ("val", 20), ("test", 30)):
        rows = [
            {"prompt": f"say {i}: ", "chosen": "a" * (1 + i % 3), "rejected": "b" * (1 + i % 2)}
            for i in range(first, first + (16 if split == "train" else 6))
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return PreferenceData(
        str(folder), **{"tokenizer": "char", "batch_size": 4, "max_tokens": 32, **options}
    )


# --- The losses find what is better ---


def bandit():
    """One prompt, eight arms of a token each; pairs are drawn at random, and the third arm always wins, then
    the smaller number."""
    torch.manual_seed(0)
    worth = [0, 0, 9, 0, 0, 0, 0, 0]
    arms = torch.stack([torch.randperm(8)[:2] for _ in range(128)])
    better = [max(pair, key=lambda i: (worth[i], -i)) for pair in arms.tolist()]
    chosen = torch.tensor(better)
    rejected = arms.sum(1) - chosen
    ids = torch.stack([torch.full_like(arms, 8), torch.stack([chosen, rejected], 1)], -1)
    labels = torch.stack([ids[..., 1], torch.full_like(arms, IGNORE)], -1)
    return [
        {"input_ids": i, "labels": j} for i, j in zip(ids.split(32), labels.split(32), strict=True)
    ]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_best_arm_is_found(loss):
    pl.seed_everything(0)
    task = PreferenceTuning(gpt(9), loss=loss, lr=1e-2, warmup_steps=2, schedule="constant")
    runner = trainer(max_epochs=15)
    runner.fit(task, DataLoader(bandit(), batch_size=None))
    logits = task.model(torch.tensor([[8]]))[0, 0, :8]
    assert logits.argmax() == 2
    found = runner.callback_metrics
    assert found["train/accuracy"] > 0.9 and found["train/margin"] > 0


# --- The reference ---


def test_a_cache_adapters_off_and_a_copy_are_one(folder):
    """After some steps, of the same model: three ways to know what it was."""
    pairs = data(folder)
    pairs.setup()
    torch.manual_seed(0)
    source = gpt(pairs.tokenizer.vocab_size)
    state = {name: value.clone() for name, value in source.state_dict().items()}
    found = {}
    for way in ("cache", "adapters", "copy"):
        torch.manual_seed(1)
        model = gpt(pairs.tokenizer.vocab_size)
        model.load_state_dict(state)
        if way == "adapters":
            add_lora(model, 2)
        task = PreferenceTuning(model, lr=1e-2, warmup_steps=0)
        options = [DataLoader(list(pairs.loader("train")), batch_size=None)]
        given = [pairs] if way == "cache" else options
        trainer(max_epochs=2, limit_val_batches=0).fit(task, *given)
        assert (len(task.cached) > 0) == (way == "cache")
        assert (task.reference is not None) == (way != "cache")
        assert (getattr(task.reference, "copy", None) is not None) == (way == "copy")
        changed = task.log_probs(task.model, next(iter(pairs.every("train"))), False)
        found[way] = task.reference_log_probs(next(iter(pairs.every("train"))))
        assert (changed - found[way]).abs().max() > 1e-3
    torch.testing.assert_close(found["adapters"], found["cache"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found["copy"], found["cache"], atol=1e-5, rtol=0)


def test_the_loss_is_that_of_the_formula_and_dropout_is_off(folder):
    pairs = data(folder)
    pairs.setup()
    model = gpt(pairs.tokenizer.vocab_size, dropout=0.5, attention_dropout=0.5, ffn_dropout=0.5)
    torch.manual_seed(0)
    task = PreferenceTuning(model, beta=0.4, label_smoothing=0.1, lr=1e-2, warmup_steps=0)
    trainer(max_steps=2, limit_val_batches=0).fit(task, pairs)
    batch = next(iter(pairs.every("val")))
    task.model.train()
    own, theirs = task.log_probs(task.model, batch, False), task.cached.of(batch["key"])
    assert torch.equal(own, task.log_probs(task.model.eval(), batch, False))
    made = dpo_loss(*own.T, *theirs.T, beta=0.4, label_smoothing=0.1)
    terms = task.loss(batch)
    torch.testing.assert_close(terms["loss"], made.loss.mean())
    torch.testing.assert_close(terms["margin"], (made.chosen - made.rejected).mean())
    torch.testing.assert_close(terms["log_prob_chosen"], own[:, 0].mean())


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_length_normalisation_is_of_both_models(folder, loss):
    pairs = data(folder)
    pairs.setup()
    task = PreferenceTuning(gpt(pairs.tokenizer.vocab_size), loss=loss, length_normalise=True)
    task.adapt_model()
    (batch, *_) = pairs.loader("val")
    before, rewards = task.compare(batch)[0].loss, task.compare(batch)[0].chosen
    assert not rewards.any()  # the model is its own reference
    other = gpt(pairs.tokenizer.vocab_size)
    task.model.load_state_dict(other.state_dict())
    made, logs = task.compare(batch)
    counts = (batch["labels"] != IGNORE).sum(-1)
    sums = task.log_probs(task.model, batch, False)
    torch.testing.assert_close(logs, sums / counts)
    apart = (sums - task.reference_log_probs(batch)) / counts
    torch.testing.assert_close(made.chosen, task.beta * apart[:, 0])
    assert not torch.equal(made.loss, before)


def test_validation_before_training_finds_no_difference(folder):
    pairs = data(folder)
    task = PreferenceTuning(gpt, lr=1e-2, warmup_steps=0)
    runner = trainer(max_epochs=1)
    found = runner.validate(task, pairs, verbose=False)[0]
    assert found["val/accuracy"] == 0.5 and found["val/margin"] == pytest.approx(0, abs=1e-6)
    runner.fit(task, pairs)
    assert runner.callback_metrics["val/margin"] > 0
    assert runner.test(task, pairs, verbose=False)[0]["test/accuracy"] > 0.5
    assert len(task.samples) == 6 and "rejected: b" in task.samples[0]


def test_other_pairs_than_the_run_began_with_are_refused(folder):
    task = PreferenceTuning(gpt, warmup_steps=0)
    trainer(max_steps=1, limit_val_batches=0).fit(task, data(folder))
    with pytest.raises(UserError, match="a pair of answers that the run did not begin with"):
        trainer().validate(task, data(folder, max_tokens=10), verbose=False)


# --- Runs ---

SMALL = [
    "--trainer.val_check_interval=4",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
    "--model.warmup_steps=0",
    "--model.lr=1e-2",
    "--model.schedule=constant",
]


def source(folder):
    pairs = data(folder)
    pairs.setup()
    model = gpt(pairs.tokenizer.vocab_size, dropout=0.1)
    model.tokenizer = pairs.tokenizer
    family.save_pretrained(model, folder / "source")
    return pairs


def fit(folder, run, *more):
    main(
        [
            *("fit", "--model=tasks.PreferenceTuning", "--model.pretrained=source"),
            *("--data=tasks.PreferenceData", f"--data.root={folder}", "--data.batch_size=4"),
            *("--data.max_tokens=32", f"--run_folder={run}", *SMALL, *more),
        ]
    )


@pytest.mark.parametrize("lora", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_resumed_run_is_the_run_to_the_bit(folder, lora):
    torch.manual_seed(0)
    source(folder)
    more = ["--model.lora.rank=2"] if lora else []
    fit(folder, "whole", *more, "--trainer.max_steps=8")
    fit(folder, "half", *more, "--trainer.max_steps=4")
    main(["resume", "half", "--run_folder=rest", "--trainer.max_steps=8"])
    kept = [torch.load(f"{run}/checkpoints/last.ckpt") for run in ("whole", "rest")]
    assert kept[0]["global_step"] == kept[1]["global_step"] == 8
    for name, value in kept[0]["state_dict"].items():
        assert torch.equal(value, kept[1]["state_dict"][name]), name
    assert ("reference_log_probs" in kept[0]) != lora
    if not lora:
        one, other = (content["reference_log_probs"] for content in kept)
        assert len(one["keys"]) == 28  # training, validation and test
        assert all(torch.equal(one[name], other[name]) for name in one)
    found = [json.loads((folder / r / "metrics-fit.json").read_text()) for r in ("whole", "rest")]
    assert found[0]["metrics"]["val/margin"] == found[1]["metrics"]["val/margin"] != 0


def test_a_run_is_a_language_model_and_its_test_knows_the_reference(folder, capsys):
    torch.manual_seed(0)
    pairs = source(folder)
    fit(folder, "run", "--trainer.max_steps=4")
    loaded = family.load("run")
    assert loaded.task == "LanguageModeling"
    assert len(loaded.predict(["say 1: "], max_new_tokens=3)) == 1
    main(["generate", "run", "--prompt", "say 1: ", "--max_new_tokens=2"])
    capsys.readouterr()
    main(["test", "run"])
    assert "test/margin" in capsys.readouterr().out
    again = PreferenceTuning.load_from_checkpoint("run")
    batch = next(iter(pairs.every("test")))
    assert again.loss(batch)["margin"] != 0


def test_a_copy_goes_with_the_checkpoint(folder):
    """Of loaders of others: the model that the run began with, not the one that goes on."""
    torch.manual_seed(0)
    loader = DataLoader(bandit(), batch_size=None)
    runner = trainer(max_epochs=1, enable_checkpointing=True, default_root_dir=folder)
    task = PreferenceTuning(gpt(9), lr=1e-2, warmup_steps=0)
    first = {name: value.clone() for name, value in task.build_model().state_dict().items()}
    runner.fit(task, loader)
    runner.save_checkpoint(folder / "one.ckpt")
    again = PreferenceTuning(gpt(9), lr=1e-2, warmup_steps=0)
    trainer(max_epochs=2).fit(again, loader, ckpt_path=folder / "one.ckpt", weights_only=True)
    for name, value in again.reference.copy.state_dict().items():
        assert torch.equal(value, first[name])
    assert any(not torch.equal(first[n], v) for n, v in again.model.state_dict().items())


def test_a_loss_or_gradient_that_is_not_finite_ends_the_run(folder, capsys, monkeypatch):
    pairs = data(folder)
    task = PreferenceTuning(gpt, warmup_steps=0)
    runner = trainer(max_steps=4, limit_val_batches=0)
    runner.fit(task, pairs)
    weights = {name: value.clone() for name, value in task.model.state_dict().items()}
    task.model.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(UserError, match="norm of the gradient is (nan|inf) at step 1"):
        trainer(max_steps=1, limit_val_batches=0).fit(task, pairs)
    assert all(torch.equal(weights[n], v) for n, v in task.model.state_dict().items())

    def lost(self, batch):
        made = loss(self, batch)
        return {**made, "loss": made["loss"] * float("nan")} if self.global_step == 3 else made

    loss = PreferenceTuning.loss
    monkeypatch.setattr(PreferenceTuning, "loss", lost)
    source(folder)
    with pytest.raises(SystemExit):
        fit(folder, "lost", "--trainer.max_steps=8", "--trainer.val_check_interval=2")
    assert "loss is nan at step 4: the run ends" in capsys.readouterr().err
    assert torch.load("lost/checkpoints/last.ckpt")["global_step"] == 2


# --- What is refused ---


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss": "ppo"}, "model.loss='ppo' is unknown; choose one of: dpo, ipo, simpo"),
        ({"beta": 0.0}, "model.beta must be above 0, not 0.0"),
        ({"label_smoothing": 0.5}, "label_smoothing must be at least 0 and below 0.5"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing is of dpo and simpo"),
        ({"gamma": -1.0}, "model.gamma must be at least 0"),
    ],
)
def test_options_that_make_no_sense(options, sentence):
    with pytest.raises(UserError, match=sentence):
        PreferenceTuning(gpt, **options)


def test_models_and_batches_that_do_not_fit(folder):
    (batch, *_) = bandit()
    task = PreferenceTuning(nn.Embedding(9, 9))
    task.adapt_model()
    with pytest.raises(UserError, match=r"pairs are \(pairs, 2, tokens\)"):
        task.loss({**batch, "input_ids": batch["input_ids"][:, 0]})
    task = PreferenceTuning(family.RewardModel(**family.RewardModel.facts.example))
    task.adapt_model()
    with pytest.raises(UserError, match=r"a language model says of each token what follows"):
        task.loss(batch)
    with pytest.raises(
        UserError, match=r"data.max_tokens=32 is more than the model's max_tokens=8"
    ):
        short = PreferenceTuning(lambda vocab_size: gpt(vocab_size, max_tokens=8))
        trainer(max_steps=1).fit(short, data(folder))


def test_adapters_have_no_dropout_either():
    model = gpt(9, dropout=0.3, drop_path=0.2)
    add_lora(model, 2, dropout=0.4)
    without_dropout(model)
    model.train()
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(model(ids), model(ids))
