"""Beams share a cache in which each sees only its own past."""

from __future__ import annotations

import pytest
import torch

import family
from family.generation import Sampling, beam_search


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "rotary", "alibi", "relative"])
@torch.no_grad()
def test_the_score_of_a_beam_is_that_of_its_tokens_read_anew(position):
    torch.manual_seed(0)
    model = family.gpt_nano(31, dim=16, depth=2, heads=2, max_tokens=24, position=position).eval()
    for parameter in model.parameters():
        parameter.mul_(4)  # sharper, so that beams fork and end
    ids = torch.randint(0, 31, (3, 6))
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[1, :2] = mask[2, :4] = False
    tokens, scores = beam_search(model, (ids, mask), beams=4, max_new_tokens=9)
    for row in range(3):
        prompt = ids[row, mask[row]]
        whole = torch.cat([prompt, tokens[row]])[None]
        chances = model(whole)[0, len(prompt) - 1 : -1].log_softmax(-1)
        total = chances.gather(1, tokens[row][:, None]).sum()
        torch.testing.assert_close(scores[row], total / tokens.shape[1])


@torch.no_grad()
def test_only_relative_positions_go_on_for_ever():
    ids = torch.randint(0, 31, (2, 6))
    sizes = {"dim": 16, "depth": 1, "heads": 2, "max_tokens": 8}
    model = family.gpt_nano(31, position="relative", **sizes).eval()
    assert model.generate(ids, max_new_tokens=20, beams=2).shape == (2, 20)
    whole = torch.cat([ids, model.generate(ids, max_new_tokens=20)], 1)
    assert torch.equal(model(whole)[:, 5:-1].argmax(-1), whole[:, 6:])
    with pytest.raises(ValueError, match="6 tokens and 3 new ones do not fit the context of 8"):
        family.gpt_nano(31, **sizes).eval().generate(ids, max_new_tokens=3)


def test_beams_find_no_worse_than_greedy():
    torch.manual_seed(1)
    model = family.gpt_nano(31, dim=16, depth=2, heads=2, max_tokens=24).eval()
    ids = torch.randint(0, 31, (2, 5))
    _, one = beam_search(model, (ids,), beams=1, max_new_tokens=8)
    _, four = beam_search(model, (ids,), beams=4, max_new_tokens=8)
    assert (four >= one - 1e-6).all()


def test_a_search_goes_without_a_sampling():
    model = family.gpt_nano(20, dim=16, depth=1, heads=2, max_tokens=8).eval()
    with pytest.raises(ValueError, match="beams=2"):
        model.generate(
            torch.zeros(1, 2, dtype=torch.long),
            max_new_tokens=2,
            beams=2,
            sampling=Sampling(temperature=1.0),
        )
