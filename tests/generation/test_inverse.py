"""Texts drawn by given numbers: the distribution, the same in any batch, and their log-probabilities."""

from __future__ import annotations

import pytest
import torch

import family
from family import Sampling
from family.generation.inverse import InverseSampling, draw
from family.losses.log_probs import token_log_probs


def model_of(**options):
    torch.manual_seed(0)
    model = family.gpt_nano(20, **{"dim": 16, "depth": 2, "heads": 2, "max_tokens": 32, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.double().eval()


def written(model, ids, mask, numbers, temperature=0.7):
    hook = InverseSampling(numbers, temperature)
    count = numbers.shape[1]
    made = model.generate(
        ids, mask, max_new_tokens=count, sampling=Sampling(), stop_ids=(), hook=hook
    )
    assert torch.equal(made, hook.tokens)
    return hook


def test_numbers_in_equal_steps_draw_as_often_as_is_likely():
    logits = torch.tensor([[1.0, -1.0, 0.0, float("-inf"), 2.0]])
    numbers = torch.arange(10_000, dtype=torch.float64) / 10_000
    tokens = draw(logits.expand(10_000, -1), numbers, 0.5)
    shares = torch.bincount(tokens, minlength=5) / 10_000
    torch.testing.assert_close(shares, (logits[0] / 0.5).softmax(-1), atol=2e-4, rtol=0)
    assert shares[3] == 0


def test_the_largest_number_draws_no_token_that_cannot_be():
    logits = torch.tensor([[0.0, 0.0, float("-inf")]])
    assert draw(logits, torch.tensor([1 - 2.0**-53])).tolist() == [1]
    assert draw(logits.flip(1), torch.tensor([0.0], dtype=torch.float64)).tolist() == [1]


@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("left", [True, False])
def test_rows_are_the_same_in_any_batch_and_log_probs_those_of_training(position, left):
    model = model_of(position=position)
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(20, (n,), generator=generator) for n in (3, 7, 5)]
    numbers = torch.rand(3, 9, generator=generator, dtype=torch.float64)
    ids, mask = torch.zeros(3, 7, dtype=torch.long), torch.zeros(3, 7, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        place = slice(7 - len(prompt), 7) if left else slice(0, len(prompt))
        ids[i, place], mask[i, place] = prompt, True
    together = written(model, ids, mask, numbers)
    for i, prompt in enumerate(prompts):
        alone = written(model, prompt[None], None, numbers[i : i + 1])
        assert torch.equal(alone.tokens[0], together.tokens[i])
        torch.testing.assert_close(alone.log_probs[0], together.log_probs[i], rtol=0, atol=1e-9)
        whole = torch.cat([prompt, together.tokens[i]])[None]
        logits = model(whole)[:, len(prompt) - 1 : -1]
        trained = token_log_probs(logits, together.tokens[i : i + 1], 0.7)
        torch.testing.assert_close(trained[0], together.log_probs[i], rtol=0, atol=1e-9)


def test_without_numbers_the_likeliest_tokens_come():
    model = model_of()
    ids = torch.tensor([[1, 2, 3]])
    hook = InverseSampling(None)
    made = model.generate(ids, max_new_tokens=8, stop_ids=(), hook=hook)
    assert torch.equal(made, model.generate(ids, max_new_tokens=8, stop_ids=()))
