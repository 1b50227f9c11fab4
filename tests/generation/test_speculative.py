"""A draft changes how many steps it takes, and nothing of what comes."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from scipy.stats import chisquare

import family
from family.generation.sampling import Sampling
from family.generation.speculative import followed, probabilities

VOCAB = 31


def drawn(model):
    """Weights at which texts are no repetition of one token."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def tiny(vocab=VOCAB, **changes):
    return drawn(family.gpt_nano(vocab, **{"dim": 16, "depth": 1, "heads": 2, **changes}))


MODELS = {
    "plain": lambda: tiny(dim=32, depth=2),
    "ring": lambda: tiny(depth=2, position="rotary", kv_heads=1, layers=[{"window": 5}, {}]),
    "alibi": lambda: tiny(depth=2, position="alibi"),
}


def prompts():
    ids = torch.randint(0, VOCAB, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, :3] = False
    return ids, mask


@pytest.mark.parametrize("draft", ["small", "itself", "prompt"])
@pytest.mark.parametrize("name", MODELS)
def test_greedy_texts_are_the_same(name, draft):
    model = MODELS[name]()
    guesses = {"small": tiny(), "itself": model, "prompt": "prompt"}[draft]
    plain = model.generate(*prompts(), max_new_tokens=40)
    for count in (1, 4):
        made = model.generate(*prompts(), max_new_tokens=40, draft=guesses, draft_tokens=count)
        assert torch.equal(made, plain)


@pytest.mark.parametrize(
    "options",
    [
        {"stop_ids": (3, 7)},
        {"stop_ids": (3,), "min_new_tokens": 12},
        {"no_repeat_ngram": 2},
        {"sampling": Sampling(repetition_penalty=1.3)},
    ],
)
@pytest.mark.parametrize("draft", ["small", "prompt"])
def test_rules_hold_within_a_guess(options, draft):
    model = MODELS["plain"]()
    plain = model.generate(*prompts(), max_new_tokens=30, **options)
    guesses = "prompt" if draft == "prompt" else tiny()
    assert torch.equal(
        model.generate(*prompts(), max_new_tokens=30, draft=guesses, **options), plain
    )


def test_a_sequence_to_sequence_model_is_guessed_for():
    model = drawn(family.transformer_tiny(VOCAB, dim=16, depth=2, heads=2, ffn_dim=32))
    small = drawn(family.transformer_tiny(VOCAB, dim=16, depth=1, heads=2, ffn_dim=16))
    plain = model.generate(*prompts(), max_new_tokens=20, beams=1)
    for draft in (small, "prompt"):
        made = model.generate(*prompts(), max_new_tokens=20, beams=1, draft=draft)
        assert torch.equal(made, plain)


@pytest.mark.parametrize("draft", ["small", "prompt"])
def test_the_distribution_is_the_models(draft):
    """Of three tokens after a prompt, by 10,000 texts."""
    model, sampling = tiny(5), Sampling(temperature=0.8, top_k=4)
    guesses = "prompt" if draft == "prompt" else drawn(family.gpt_nano(5, dim=8, depth=1, heads=1))
    prompt = torch.tensor([[1, 2, 3, 1, 2]])
    texts = torch.tensor(list(product(range(5), repeat=3)))
    with torch.no_grad():
        logits = model(torch.cat([prompt.expand(len(texts), -1), texts], dim=1))[:, 4:7]
    each = torch.stack([probabilities(logits[:, i], sampling) for i in range(3)], dim=1)
    expected = each.gather(2, texts[..., None])[..., 0].prod(1)
    generator = torch.Generator().manual_seed(0)
    found = torch.cat(
        [
            # Rows are kept apart by small batches: together they keep the fewest guesses.
            model.generate(
                prompt.expand(50, -1), max_new_tokens=3, sampling=sampling, draft=guesses,
                draft_tokens=2, generator=generator, stop_ids=(),
            )
            for _ in range(200)
        ]
    )  # fmt: skip
    counts = (found @ torch.tensor([25, 5, 1])).bincount(minlength=125).double()
    may = expected > 0
    assert counts[~may].sum() == 0
    wanted = expected[may].double() / expected[may].sum() * counts.sum()
    often = wanted > 5
    rest = torch.stack([counts[may][~often].sum(), wanted[~often].sum()])
    pairs = torch.stack([counts[may][often], wanted[often]])
    pairs = torch.cat([pairs, rest[:, None]], dim=1) if rest[1] > 0 else pairs
    assert chisquare(pairs[0], pairs[1] * pairs[0].sum() / pairs[1].sum()).pvalue > 1e-3


def test_a_model_that_guesses_for_itself_takes_a_fifth_of_the_steps(monkeypatch):
    model, steps = tiny(), []
    decode = model.decode
    own = drawn(family.gpt_nano(VOCAB, dim=16, depth=1, heads=2))
    own.load_state_dict(model.state_dict())
    monkeypatch.setattr(model, "decode", lambda *a: steps.append(a[0].shape) or decode(*a))
    model.generate(torch.tensor([[1, 2, 3]]), max_new_tokens=41, draft=own, stop_ids=())
    assert len(steps) == 8 and all(shape == (1, 5) for shape in steps)


def test_what_stood_before():
    assert followed([1, 2, 3, 9, 1, 2, 3], 2) == [9, 1]
    assert followed([5, 2, 7, 2], 4) == [7, 2]
    assert followed([-1, 2, 7, 3], 4) == [] == followed([1], 3)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"draft": "other"}, "draft='other' must be a model, or \"prompt\"."),
        ({"draft": "prompt", "beams": 2}, "for one beam, not beams=2"),
        ({"draft": "prompt", "draft_tokens": 0}, "draft_tokens=0 must be at least 1."),
        (
            {"draft": "prompt", "generator": [torch.Generator()] * 3},
            "all rows draw from one generator",
        ),
    ],
)
def test_refused_in_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny().generate(*prompts(), max_new_tokens=4, **options)


def test_other_vocabularies_and_recurrent_models_are_refused():
    with pytest.raises(ValueError, match="a vocabulary of 40, and the model one of 31"):
        tiny().generate(*prompts(), max_new_tokens=4, draft=tiny(40))
    model = family.transformer_tiny(VOCAB, dim=16, depth=1, heads=2)
    lstm = family.LSTMSeq2Seq(VOCAB, 16).eval()
    with pytest.raises(ValueError, match="cannot"):
        lstm.generate(*prompts(), max_new_tokens=4, beams=1, draft=model)
