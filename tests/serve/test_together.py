"""Texts that begin at the same time grow as one batch, and are those that they would be alone."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

import family
from family import Sampling
from tasks.serve.together import Together

PROMPTS = [[3, 4, 5], [6, 7], [8, 9, 1]]
DRAWN = Sampling(temperature=1.0, top_p=0.9)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = family.gpt_nano(40, dim=32, depth=2, heads=2, max_tokens=24).eval().double()
    made.generation = family.Generation(stop_ids=(2,))
    made.tokenizer = None
    return made


@pytest.fixture
def calls(model, monkeypatch):
    """The rows of each reading of prompts."""
    rows, stream = [], type(model).stream

    def counted(self, ids, *args, **options):
        rows.append(len(ids))
        return stream(self, ids, *args, **options)

    monkeypatch.setattr(type(model), "stream", counted)
    return rows


def alone(model, ids, count, sampling, seed):
    made = model.stream(
        torch.tensor([ids]),
        max_new_tokens=count,
        sampling=sampling,
        generator=seeded(seed),
        stop_ids=(2,),
    )
    return [int(token) for token in made]


@pytest.mark.parametrize("sampling", [DRAWN, Sampling()])
def test_a_text_is_the_one_that_it_would_be_alone(model, calls, sampling):
    together, counts = Together(model), (12, 9, 15)
    rows = list(zip(PROMPTS, counts, range(3), strict=True))
    texts = [together.join(ids, n, sampling, seeded(i)) for ids, n, i in rows]
    found = [[], [], []]
    for _ in range(16):  # one token of each in turn, as the server does it
        for text, made in zip(texts, found, strict=True):
            made += [token for token in [next(text, None)] if token is not None]
    assert calls == [3]
    assert found == [alone(model, ids, n, sampling, i) for ids, n, i in rows]


def test_a_row_ends_by_itself_and_the_others_go_on(model, monkeypatch):
    steps = torch.tensor([[5, 5], [-1, 6], [-1, 7]])
    monkeypatch.setattr(type(model), "stream", lambda *_, **__: iter(steps))
    together = Together(model)
    one, two = (together.join([3], 3, DRAWN, seeded(i)) for i in range(2))
    assert (list(one), list(two)) == ([5], [5, 6, 7])


def test_what_begins_later_or_is_drawn_otherwise_is_a_batch_of_its_own(model, calls):
    together = Together(model)
    first = together.join([3], 5, DRAWN, seeded(0))
    next(first)
    others = [together.join([3], 5, how, seeded(1)) for how in (DRAWN, Sampling())]
    others += [
        together.join([3] * 9, 5, DRAWN, seeded(1)),
        together.join([3], 20, DRAWN, seeded(1)),
    ]
    for text in others:
        next(text)
    assert calls == [1] * 5


def test_no_text_of_a_batch_outgrows_the_context(model, calls):
    """10 + 12 and 9 + 15 tokens are no more than 24, but 10 + 15 are."""
    together = Together(model)
    texts = [together.join([3] * n, count, DRAWN, seeded(n)) for n, count in ((10, 12), (9, 15))]
    assert [next(text) for text in texts] and calls == [1, 1]


@pytest.mark.parametrize("when", [1, 3])
def test_a_failure_ends_every_text_of_the_batch_and_no_later_one(model, monkeypatch, when):
    """At the reading of the prompts, or at a token further on."""
    method = "prefill" if when == 1 else "decode"
    usual, calls = getattr(type(model), method), []

    def failing(self, *args, **options):
        calls.append(0)
        if len(calls) == when:
            raise RuntimeError("no memory")
        return usual(self, *args, **options)

    monkeypatch.setattr(type(model), method, failing)
    together = Together(model)
    texts = [together.join(ids, 9, DRAWN, seeded(0)) for ids in PROMPTS[:2]]
    for text in texts:
        with pytest.raises(RuntimeError, match="no memory"):
            list(text)
    again = together.join(PROMPTS[0], 9, DRAWN, seeded(0))
    assert list(again) == alone(model, PROMPTS[0], 9, DRAWN, 0)


def test_what_cannot_begin_fails_for_every_text(model, monkeypatch):
    together = Together(model)
    texts = [together.join([3], 3, DRAWN, seeded(i)) for i in range(2)]

    tried = []

    def refuse(*_, **__):
        tried.append(0)
        raise ValueError("no")

    monkeypatch.setattr(type(model), "stream", refuse)
    for text in texts:
        with pytest.raises(ValueError, match="no"):
            next(text)
    assert len(tried) == 1


def test_batches_that_nobody_reads_are_let_go(model):
    together, batches = Together(model), []
    for i in range(3):
        text = together.join([3], 3, Sampling(temperature=1 + i / 10), seeded(i))
        batches += [weakref.ref(batch) for batch in together.open.values()]
        next(text)
        if i:  # the first is left, the others are read to their end
            list(text)
    del text
    gc.collect()
    assert len(batches) >= 3 and not any(batch() for batch in batches)
    assert not together.open


def test_a_least_length_is_counted_from_a_texts_own_prompt(model, calls):
    model.generation = family.Generation(stop_ids=(2,), min_length=8)
    together = Together(model)
    texts = [together.join(ids, 9, DRAWN, seeded(0)) for ids in ([3] * 4, [4] * 4, [5] * 6)]
    for text in texts:
        next(text)
    assert sorted(calls) == [1, 2]
