"""Scorers: rules, a classifier, a reward model."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import family
from family.inputs.conversation import answer_ids, prompt_ids
from tasks.data.shape_dialogues import exchange
from tasks.data.tokenizers import train_tokenizer
from tasks.errors import UserError
from tasks.training import scorers
from tasks.training.scorers import (
    ClassifierScorer,
    ExactAnswer,
    RewardModelScorer,
    ShapesScorer,
    rewards_of,
)


def test_an_exact_answer_is_that_of_the_field():
    scorer = ExactAnswer()
    assert scorer(["1+1=", "2+2="], [" 2", "5"], answer=["2", 4]) == [1.0, 0.0]
    with pytest.raises(
        UserError, match="fails at step 7: UserError: the prompts have no field 'ans"
    ):
        rewards_of(scorer, ["a"], ["b"], {}, 7)


def test_answers_about_scenes_are_judged_by_their_prompts():
    some = [exchange(i) for i in range(6)]
    prompts = [one.prompt[-1]["content"] for one in some]
    right = ShapesScorer()(prompts, [one.answer for one in some])
    wrong = ShapesScorer()(prompts, [one.wrong for one in some])
    assert right == [1.0] * 6 and all(score < 1 for score in wrong)


@pytest.fixture
def classifier(monkeypatch):
    torch.manual_seed(0)
    tokenizer = train_tokenizer("char", ["a bcd"])
    config = family.TransformerConfig(dim=8, depth=1, heads=2, position="learned", max_tokens=16)
    model = family.BERT(tokenizer.vocab_size, config, num_classes=3, masked_head=False)
    model.tokenizer, model.labels = tokenizer, ["bad", "fair", "good"]
    loaded = family.load(model, task="TextClassification")
    monkeypatch.setattr(scorers, "load", lambda source, dtype: loaded)
    return loaded


def test_a_classifier_reads_prompt_and_answer_as_one_text(classifier):
    found = ClassifierScorer("run", "good", batch_size=1)(["a ", "b"], ["b", "cd"])
    expected = [row["probabilities"]["good"] for row in classifier.predict(["a b", "bcd"])]
    assert found == pytest.approx(expected, abs=1e-6)
    odds = ClassifierScorer("run", "good", log_odds=True)(["a ", "b"], ["b", "cd"])
    assert odds == pytest.approx([math.log(p / (1 - p)) for p in expected], abs=1e-5)
    # Of a conversation the answer alone.
    alone = ClassifierScorer("run", "good")(["a"], ["cd"], messages=[[]])
    assert alone == pytest.approx([classifier.predict(["cd"])[0]["probabilities"]["good"]])


def test_what_is_no_classifier_or_no_class_of_it_is_refused(classifier):
    with pytest.raises(
        UserError, match="'god' is none of run: it has bad, fair, good. Did you mean"
    ):
        ClassifierScorer("run", "god")
    classifier.task = "Tagging"
    with pytest.raises(UserError, match="source run is for Tagging, not for TextClassification"):
        ClassifierScorer("run", "good")


class Reward(nn.Module):
    """A number that is known: the sum of the ids, times their count."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, input_ids, mask):
        return (input_ids * mask).sum(1) * mask.sum(1) * self.scale


def test_a_reward_model_reads_both_by_its_own_tokenizer(monkeypatch):
    model = Reward()
    model.tokenizer = tokenizer = train_tokenizer("char", ["abcd"])
    loaded = family.load(model, task="")
    monkeypatch.setattr(scorers, "load", lambda source, dtype: loaded)
    scorer = RewardModelScorer("run", batch_size=2)
    found = scorer(["a", "ab", "d"], ["cd", "c", ""])
    for value, pair in zip(found, (("a", "cd"), ("ab", "c"), ("d", "")), strict=True):
        ids = [*prompt_ids(tokenizer, pair[0]), *answer_ids(tokenizer, *pair)]
        assert value == sum(ids) * len(ids)
    model.forward = lambda input_ids, mask: torch.zeros(len(input_ids), 2)
    with pytest.raises(UserError, match=r"run gives \(2, 2\) for 2 texts"):
        scorer(["a", "b"], ["c", "d"])
