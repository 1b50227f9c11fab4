"""Reward modelling: what it reports by hand-made cases, what it learns, and whose weights it begins with."""

from __future__ import annotations

import json
import math

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

import family
from tasks.cli import main
from tasks.data.preferences import PreferenceData
from tasks.errors import UserError
from tasks.reward_modeling import RewardModeling
from tasks.training.pairs import calibration_error, columns, judged, won

STACK = {"dim": 32, "depth": 1, "heads": 2, "causal": True, "position": "rotary"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def model(vocab_size, **stack):
    config = family.TransformerConfig(**{**STACK, "max_tokens": 256, **stack})
    return family.RewardModel(vocab_size, config)


class Said(nn.Module):
    """The reward of a row is what its first id says."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, input_ids, mask=None):
        return self.scale * input_ids[:, 0].float()


def ready(model, **options):
    task = RewardModeling(model, **options)
    task.adapt_model()
    return task


def rows(*rewards, margin=None):
    """A batch whose rewards are given, by pairs."""
    batch = {"input_ids": torch.tensor(rewards)[..., None]}
    return batch if margin is None else {**batch, "margin": torch.tensor(margin)}


def test_equal_rewards_are_half_right():
    assert won(torch.tensor([2.0, 1, 1]), torch.tensor([1.0, 2, 1])).tolist() == [1, 0, 0.5]
    nothing = torch.tensor([math.nan, 1.0])
    assert won(nothing, nothing.flip(0)).tolist() == [0, 0]


def test_calibration_by_hand():
    """Two bins: of confidence 0.6 half are right, of 0.9 all."""
    low, high = math.log(0.6 / 0.4), math.log(0.9 / 0.1)
    ahead = torch.tensor([low, -low, high, high, high, high], dtype=torch.double)
    expected = 2 / 6 * abs(0.5 - 0.6) + 4 / 6 * abs(1 - 0.9)
    assert calibration_error(ahead, ahead * 0) == pytest.approx(expected, abs=1e-12)
    # Who says nothing is sure of nothing, and who is always sure and wrong is off by all.
    assert calibration_error(torch.zeros(5), torch.zeros(5)) == 0
    assert calibration_error(torch.full((5,), -99.0), torch.zeros(5)) == pytest.approx(1)
    # Within a bin errors of either kind make up for each other, and between bins they do not.
    torch.manual_seed(0)
    apart = 3 * torch.randn(20_000, dtype=torch.double)
    right = torch.rand(20_000, dtype=torch.double) < apart.abs().sigmoid()
    signed = torch.where(right, apart.abs(), -apart.abs())
    assert calibration_error(signed, signed * 0) < 0.02


def test_reports_are_of_the_whole_split():
    task = RewardModeling(Said())
    batches = [rows((3, 1), (1, 2)), rows((5, 5))]
    found = trainer().test(task, DataLoader(batches, batch_size=None), verbose=False)[0]
    losses = [math.log(1 + math.exp(x)) for x in (-2, 1, 0)]
    sure = [1 / (1 + math.exp(-x)) for x in (2, 1, 0)]
    off = sum(abs(a - b) for a, b in zip(sure, (1, 0, 0.5), strict=True))
    assert found == pytest.approx(
        {
            "test/loss": sum(losses) / 3,
            "test/accuracy": 0.5,
            "test/margin": 1 / 3,
            "test/calibration_error": off / 3,
        },
        abs=1e-6,
    )
    assert [row["reward_chosen"] for row in task.tables["worst"]] == [1]
    pairs = columns(judged({}, torch.tensor([3.0, 1, 5]), torch.tensor([1.0, 2, 5])))
    assert pairs["correct"] == [1, 0, 0.5] and pairs["reward_chosen"] == [3, 1, 5]


def test_margins_and_what_centres():
    task = ready(Said(), margins=True, centre=0.1)
    made = task.loss(rows((3, 1), (1, 1), margin=[1.0, 0.5]))
    pairs = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(0.5))) / 2
    assert float(made["loss"]) == pytest.approx(pairs + 0.1 * (16 + 4) / 2, abs=1e-6)
    with pytest.raises(UserError, match=r"model.margins=true needs pairs with a margin"):
        task.loss(rows((3, 1)))
    with pytest.raises(UserError, match=r"model.centre must be at least 0"):
        RewardModeling(Said(), centre=-1)
    with pytest.raises(UserError, match=r"pairs are \(pairs, 2, tokens\)"):
        task.loss({"input_ids": torch.ones(4, 3)})


def test_a_model_of_something_else_is_refused():
    with pytest.raises(UserError, match=r"a reward is one number of each: \(batch,\)"):
        ready(Wide()).loss(rows((3, 1)))


class Wide(Said):
    def forward(self, input_ids, mask=None):
        return super().forward(input_ids, mask)[:, None]


def test_it_learns_and_a_loss_that_is_no_number_stops(folder):
    """Answers that are longer are better."""
    for split in ("train", "val", "test"):
        text = [
            {"prompt": f"{i} is", "chosen": "a" * (3 + i % 4), "rejected": "a" * (1 + i % 2)}
            for i in range(24)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in text))
    data = PreferenceData(str(folder), tokenizer="char", batch_size=8)
    pl.seed_everything(0)
    task = RewardModeling(model, lr=1e-2, warmup_steps=2)
    runner = trainer(max_epochs=8)
    runner.fit(task, data)
    assert runner.callback_metrics["val/accuracy"] == 1
    assert len(task.samples) == 8 and " chosen: aaa" in task.samples[0]
    made = [row for batch in runner.predict(task, data) for row in batch]
    assert all(row["reward_chosen"] > row["reward_rejected"] for row in made)
    with torch.no_grad():
        task.model.head.weight.fill_(math.nan)
    with pytest.raises(UserError, match="loss is nan at step 1: the run ends"):
        trainer(max_epochs=1).fit(task, data)


def test_a_run_begins_with_a_language_model_and_loads_again(folder, capsys):
    small = [
        "--trainer.max_steps=2",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.accelerator=cpu",
    ]
    tokenizer = PreferenceData(examples=30, vocab_size=300)._tokenizer()
    source = family.GPT(300, family.TransformerConfig(**STACK, max_tokens=200))
    source.tokenizer = tokenizer
    family.save_pretrained(source, folder / "source")
    main(
        [
            *("fit", "--model=tasks.RewardModeling", "--model.pretrained=source", "--run_folder=r"),
            *("--data=tasks.PreferenceData", "--data.examples=30", "--data.max_tokens=190"),
            *("--data.batch_size=8", *small),
        ]
    )
    loaded = family.load("r")
    assert isinstance(loaded.model, family.RewardModel) and loaded.task == "RewardModeling"
    assert loaded.tokenizer.chat_template == tokenizer.chat_template
    assert loaded.tokenizer.max_tokens == 190
    ask = [{"role": "user", "content": "how many red circles are there?"}]
    assert len(loaded.predict([ask, ask], ["one", "two"])) == 2
    capsys.readouterr()
    main(["test", "r"])
    assert "test/calibration_error" in capsys.readouterr().out
