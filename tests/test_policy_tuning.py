"""Policy tuning: what it learns, and that batches, processes and interruptions change nothing of it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import family
from family.losses.language_model import IGNORE
from family.losses.log_probs import token_log_probs
from tasks.data.prompts import PromptData
from tasks.errors import NotFiniteError, UserError
from tasks.policy_tuning import PolicyTuning
from tasks.runs.folder import LastCheckpoint
from tasks.training.answers import joined, parts, read, together
from tasks.training.rollout import roll_out

TINY = {"dim": 16, "depth": 1, "heads": 2, "max_tokens": 24}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def gpt(vocab_size, **options):
    return family.gpt_nano(vocab_size, **{**TINY, **options})


def best(prompts, answers, **fields):
    """The bandit's best arm is the letter that the prompt ends with."""
    return [
        float(answer[:1] == prompt[-1:]) for prompt, answer in zip(prompts, answers, strict=True)
    ]


def lengths(prompts, answers, **fields):
    return [len(answer) + 0.1 * answer.count("a") for answer in answers]


def write(folder, count=16, **fields):
    """Prompts of one kind, all splits alike."""
    for split in ("train", "val", "test"):
        rows = [{"prompt": f"{i % 3} {'abcd'[i % 4]}", **fields} for i in range(count)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text)


def data_of(folder, **options):
    write(folder)
    return PromptData(str(folder), **{"tokenizer": "char", "batch_size": 4, **options})


def task_of(scorer=best, **options: Any) -> PolicyTuning:
    pl.seed_everything(0)
    usual = {"samples": 4, "max_new_tokens": 3, "lr": 0.007, "warmup_steps": 0}
    return PolicyTuning(gpt, scorer, **{**usual, "schedule": "constant", **options})


def trainer(**options: Any) -> pl.Trainer:
    usual: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    usual |= {"enable_progress_bar": False, "enable_model_summary": False}
    usual |= {"num_sanity_val_steps": 0, "use_distributed_sampler": False}
    return pl.Trainer(**{**usual, **options})


def weights(task):
    return torch.cat([p.detach().flatten() for p in task.learner.parameters()])


METHODS = {
    "grpo": {"method": "grpo"},
    "grpo_kl": {"method": "grpo", "kl": 0.02, "epochs": 2},
    "dr_grpo": {"method": "grpo", "unbiased": True},
    "ppo": {"method": "ppo", "epochs": 2, "minibatches": 2, "kl": 0.01},
}


@pytest.mark.parametrize("name", METHODS)
def test_each_method_finds_the_best_answer(folder, name):
    task = task_of(**{"max_new_tokens": 1, "samples": 16, "greedy": True, **METHODS[name]})
    runner = trainer(max_steps=50, check_val_every_n_epoch=None, val_check_interval=50)
    runner.fit(task, data_of(folder))
    assert runner.callback_metrics["val/reward"] == 1
    assert runner.callback_metrics["train/mismatch"] < 1e-4
    assert task.samples[0].startswith("prompt: 0 a\nanswer: ")


def test_the_sampler_and_the_trainer_agree_and_dropout_is_off(folder):
    task = task_of(temperature=0.7, minibatches=2, epochs=2)
    task.build = lambda vocab_size: gpt(vocab_size, dropout=0.5).double()
    runner = trainer(max_steps=3, limit_val_batches=0)
    runner.fit(task, data_of(folder))
    assert runner.callback_metrics["train/mismatch"] < 1e-9
    rows = task.rollouts[0]["rows"]
    with torch.no_grad():
        logits = read(task.model, rows)[0]
        whole = task.model.eval()(rows["input_ids"], rows["mask"])
    found = token_log_probs(logits, rows["labels"], 0.7)
    for i, (first, labels) in enumerate(zip(rows["first"], rows["labels"], strict=True)):
        mine = labels[labels != IGNORE]
        assert torch.equal(rows["input_ids"][i, first + 1 : first + 1 + len(mine)], mine)
        logs = (whole[i, first : first + len(mine)] / 0.7).log_softmax(-1)
        torch.testing.assert_close(
            found[i, : len(mine)], logs.gather(1, mine[:, None])[:, 0], rtol=0, atol=1e-9
        )


def test_an_answers_end_is_learnt_and_a_cut_one_is_counted(folder):
    data = data_of(folder)
    data.prepare_data()
    end = data.tokenizer.eos_id
    task = task_of(lengths, max_new_tokens=6, samples=64)
    trainer(max_steps=1, limit_val_batches=0).fit(task, data)
    rows, found = task.rollouts[0]["rows"], task.rollouts[0]["found"]
    written = rows["labels"] != IGNORE
    ends = (rows["labels"] == end).any(1)
    assert 0 < found["cut_off"] < 1
    assert found["cut_off"] == pytest.approx(float((~ends).float().mean()))
    assert (written.sum(1)[~ends] == 6).all()
    last = rows["labels"].gather(1, written.sum(1, keepdim=True) - 1).squeeze(1)
    assert torch.equal(last == end, ends)
    assert found["length"] == pytest.approx(float(written.sum(1).float().mean()))


def test_parts_are_put_together_again():
    rows = {"labels": torch.arange(24).view(12, 2), "first": torch.arange(12)}
    found = parts(rows, 3)
    assert found[1]["first"].tolist() == [1, 4, 7, 10]
    assert all(torch.equal(rows[name], together(found)[name]) for name in rows)
    ids = torch.tensor([[0, 5, 6], [7, 8, 9]])
    made = joined(ids, ids > 0, torch.tensor([[1, 2], [3, IGNORE]]))
    assert made["input_ids"].tolist() == [[5, 6, 1, 2], [7, 8, 9, 3]]
    assert made["first"].tolist() == [1, 2] and made["mask"].all()


@pytest.mark.parametrize("method", ["grpo", "ppo"])
@pytest.mark.parametrize("unbiased", [True, False])
def test_parts_of_a_step_are_one_step(folder, method, unbiased):
    found = []
    for count in (1, 4):
        options = {"kl": 0.1, "method": method, "unbiased": unbiased, "optimizer": "sgd"}
        task = task_of(lengths, **options, minibatches=count)
        task.build = lambda vocab_size: gpt(vocab_size).double()
        trainer(max_steps=4, accumulate_grad_batches=count, limit_val_batches=0).fit(
            task, data_of(folder)
        )
        found.append(weights(task))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-9)


class Cut(pl.Callback):
    """Keep what a validation in the midst of a run leaves."""

    def on_validation_end(self, trainer, module):
        if trainer.global_step < trainer.max_steps:
            trainer.save_checkpoint("cut.ckpt")


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_a_run_resumes_to_the_bit_between_two_uses_of_its_answers(folder, method):
    """After 3 steps of 4 of the second batch's answers, as a validation leaves it."""
    options = {"method": method, "epochs": 2, "minibatches": 2, "kl": 0.05}
    ends = {"check_val_every_n_epoch": None, "val_check_interval": 7}
    whole = task_of(lengths, **options)
    trainer(max_steps=13, **ends, callbacks=[Cut()]).fit(whole, data_of(folder))
    content = torch.load("cut.ckpt", weights_only=True)
    assert content["global_step"] == 7 and len(content["rollouts"]) == 1
    again = task_of(lengths, **options)
    trainer(max_steps=13, **ends).fit(again, data_of(folder), ckpt_path="cut.ckpt")
    assert torch.equal(weights(whole), weights(again))
    assert whole.rollouts[0]["index"] == again.rollouts[0]["index"]
    # Without the answers it writes others, by other weights.
    del content["rollouts"]
    torch.save(content, "less.ckpt")
    less = task_of(lengths, **options)
    trainer(max_steps=13, **ends).fit(less, data_of(folder), ckpt_path="less.ckpt")
    assert not torch.equal(weights(whole), weights(less))


def test_batches_and_processes_write_the_same(folder):
    """Rows depend on prompt, step and number alone; the processes' shares are those of one."""
    data, made = data_of(folder, batch_size=16), {}
    data.prepare_data()
    task = task_of(lengths)
    task.build = lambda vocab_size: gpt(vocab_size).double()
    trainer(max_steps=1, limit_val_batches=0).fit(task, data)
    for size in (16, 4):
        few = data_of(folder, batch_size=size)
        few.use_assets(data.assets())
        for batch in few.loader("val"):
            rows = roll_out(task, batch)["rows"]
            for i, place in enumerate(batch["index"]):
                mine = rows["labels"][4 * i : 4 * i + 4].tolist()
                mine = [[t for t in row if t != IGNORE] for row in mine]
                assert made.setdefault(place, mine) == mine
    assert len(made) == 16


# --- What is refused ---


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "reinforce"}, "model.method='reinforce' is unknown; choose grpo or ppo"),
        ({"samples": 1}, "grpo needs 2 answers to a prompt at least"),
        ({"temperature": 0.0}, "model.temperature must be above 0, not 0.0"),
        ({"kl": -1.0}, "model.kl must be at least 0"),
        ({"scorer": None}, "model.scorer says how good an answer is"),
        ({"max_new_tokens": 24}, "max_new_tokens=24 leaves no room for a prompt in the context"),
        ({"max_new_tokens": 22}, r"train.jsonl line 1: the prompt has 3 tokens, more than the 2"),
        ({"minibatches": 3}, "16 answers do not divide into model.minibatches=3"),
    ],
)
def test_options_that_make_no_sense(folder, options, says):
    with pytest.raises(UserError, match=says):
        trainer(max_steps=1).fit(task_of(**options), data_of(folder))


def test_gradients_of_a_step_are_of_the_same_weights(folder):
    with pytest.raises(
        UserError, match="accumulate_grad_batches=2 must divide model.minibatches=1"
    ):
        trainer(max_steps=1, accumulate_grad_batches=2).fit(task_of(epochs=2), data_of(folder))
    trainer(max_steps=1, accumulate_grad_batches=2, limit_val_batches=0).fit(
        task_of(), data_of(folder)
    )


def test_a_model_whose_tokens_are_forced_is_refused(folder):
    data = data_of(folder)
    data.prepare_data()
    model = gpt(data.tokenizer.vocab_size)
    model.generation = family.Generation(rules=family.generation.TokenRules({0: 5}))
    with pytest.raises(UserError, match="forces or suppresses tokens"):
        trainer(max_steps=1).fit(PolicyTuning(model, best), data)


def test_a_penalty_of_the_models_own_changes_nothing(folder):
    """It would leave the log-probabilities of the sampler behind."""
    data = data_of(folder)
    data.prepare_data()
    task = task_of(lengths)
    task.build = lambda vocab_size: gpt(vocab_size).double()
    runner = trainer(max_steps=1, limit_val_batches=0)
    runner.fit(task, data)
    task.model.generation = family.Generation(
        sampling=family.Sampling(3.0, 0.5, top_k=2), no_repeat_ngram=1, beams=2, min_new_tokens=2
    )
    with torch.no_grad():
        terms = task.loss(roll_out(task, next(iter(data.loader("val"))))["rows"])
    assert terms["mismatch"] < 1e-9


def fails(prompts, answers, **fields):
    raise KeyError("colour")


def few(prompts, answers, **fields):
    return [1.0]


def nothing(prompts, answers, **fields):
    return [math.nan] * len(answers)


@pytest.mark.parametrize(
    ("scorer", "says"),
    [
        (fails, "the scorer fails fails at step 1: KeyError: 'colour'"),
        (few, "the scorer few gives 1 rewards for 16 answers at step 1"),
        (nothing, "the scorer nothing gives nan at step 1, for the answer"),
    ],
)
def test_a_scorer_that_fails_is_named_with_the_step(folder, scorer, says):
    with pytest.raises(UserError, match=says):
        trainer(max_steps=1, limit_val_batches=0).fit(task_of(scorer), data_of(folder))


class Later:
    """Finite rewards for so many calls."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, prompts, answers, **fields):
        self.calls -= 1
        return lengths(prompts, answers) if self.calls >= 0 else nothing(prompts, answers)


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_that_is_not_finite_keeps_its_last_good_checkpoint(folder, kept):
    """What the last validation wrote; where there was none, the weights of the last step."""
    data = data_of(folder)
    last = LastCheckpoint(folder)
    runner = trainer(
        max_steps=9,
        callbacks=[last],
        enable_checkpointing=True,
        check_val_every_n_epoch=None,
        val_check_interval=2 if kept else 8,
    )
    # Validation asks 4 times.
    with pytest.raises(NotFiniteError, match="gives nan at step 4"):
        runner.fit(task_of(Later(7 if kept else 3)), data)
    assert torch.load(last.file, weights_only=True)["global_step"] == (2 if kept else 3)


def test_a_loss_that_is_not_finite_ends_the_run(folder):
    task = task_of(lengths, kl=0.1)
    task.loss = lambda batch: {"loss": torch.tensor(1.0), "kl": torch.tensor(math.inf)}
    with pytest.raises(NotFiniteError, match="train/kl is inf at step 1: the run ends"):
        trainer(max_steps=1, limit_val_batches=0).fit(task, data_of(folder))
