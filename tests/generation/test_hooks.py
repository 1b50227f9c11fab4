"""Rules about tokens, by their place among the new ones."""

from __future__ import annotations

import math

import torch

import family
from family.generation import TokenRules, beam_search


def test_what_comes_and_what_does_not():
    rules = TokenRules(forced={1: 3}, suppressed=[2], suppressed_first=[0])
    logits = torch.arange(5.0).expand(2, 3, 5)
    first = rules(logits, torch.empty(2, 3, 0, dtype=torch.long))
    assert first[0, 0].tolist() == [-math.inf, 1, -math.inf, 3, 4]
    second = rules(logits, torch.zeros(2, 3, 1, dtype=torch.long))
    assert second[1, 2].tolist() == [-math.inf, -math.inf, -math.inf, 0, -math.inf]
    third = rules(logits, torch.zeros(2, 3, 2, dtype=torch.long))
    assert third[1, 2].tolist() == [0, 1, -math.inf, 3, 4]
    assert logits[0, 0].tolist() == [0, 1, 2, 3, 4]  # what was given stays


def test_ids_are_exact_whatever_the_precision_of_logits():
    for dtype in (torch.bfloat16, torch.float16):
        logits = torch.zeros(1, 60_000, dtype=dtype)
        ruled = TokenRules(suppressed=[50_257, 3_001])(logits, torch.empty(1, 0, dtype=torch.long))
        assert ruled.isinf().nonzero()[:, 1].tolist() == [3_001, 50_257]


def test_no_rules_change_nothing():
    logits = torch.randn(2, 5)
    assert torch.equal(TokenRules()(logits, torch.empty(2, 0, dtype=torch.long)), logits)


@torch.no_grad()
def test_scores_of_a_search_are_log_probabilities_under_the_model():
    """What is ruled out makes nothing else likelier, and what is forced costs nothing."""
    torch.manual_seed(0)
    model = family.gpt_nano(31, dim=16, depth=2, heads=2, max_tokens=24).eval()
    for parameter in model.parameters():
        parameter.mul_(4)
    ids = torch.randint(0, 31, (3, 6))
    rules = TokenRules(forced={0: 7}, suppressed=list(range(0, 31, 2)))
    tokens, scores = beam_search(model, (ids,), beams=4, max_new_tokens=9, hook=rules)
    assert (tokens[:, 0] == 7).all() and (tokens % 2 == 1).all()
    chances = model(torch.cat([ids, tokens], 1))[:, 5:-1].log_softmax(-1)
    total = chances.gather(2, tokens[..., None])[:, 1:].sum((1, 2))
    torch.testing.assert_close(scores, total / 9)
